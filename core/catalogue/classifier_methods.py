"""The methods for image classifiers, with their papers; some prune the linear layers of language models too."""

from core.catalogue.classic_parameters import IterativeMagnitudeParameters, OBDParameters, OBSParameters
from core.catalogue.filter_parameters import FilterL1Parameters, FilterTaylorParameters
from core.methods.method_info import SMALLER, ZEROS, ZEROS_OR_N_M, MethodInfo
from secateur_wire.methods import Needs, Paper

_FILTERS = ("structured",)
_IMAGES = ("image-classification",)

CLASSIFIER_METHODS: tuple[MethodInfo, ...] = (
    MethodInfo(
        id="obd",
        title="Optimal Brain Damage",
        summary="Removes, from the whole network, the weights that cost least by the diagonal of the loss's Hessian; "
        "retrains; repeats.",
        description="Estimates from second derivatives how much the loss would rise without each weight, all over "
        "the network, removes the cheapest, retrains, and repeats. It needs labelled images and "
        "training time, and keeps more accuracy than one cut does at high sparsities.",
        gains=ZEROS,
        paper=Paper(
            title="Optimal Brain Damage",
            authors="LeCun, Denker, Solla",
            year=1989,
            url="https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html",
        ),
        task_families=_IMAGES,
        patterns=("unstructured",),
        needs=Needs(calibration=True, gradients=True, training=True),
        parameters=OBDParameters,
    ),
    MethodInfo(
        id="obs",
        title="Optimal Brain Surgeon",
        summary="Removes one weight after the other, the cheapest by the whole inverse Hessian, and moves all others "
        "to make up for it: of a small network as a whole, of others layer by layer.",
        description="Removes one weight at a time and moves all others to make up for it. On a small network with "
        "the inverse Hessian of the whole, the most careful of all methods and the slowest; on "
        "anything larger layer by layer, which is close to what SparseGPT does faster.",
        gains=ZEROS_OR_N_M,
        paper=Paper(
            title="Second Order Derivatives for Network Pruning: Optimal Brain Surgeon",
            authors="Hassibi, Stork",
            year=1992,
            url="https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html",
        ),
        task_families=("language-model", *_IMAGES),
        patterns=("unstructured", "n:m"),
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=OBSParameters,
    ),
    MethodInfo(
        id="iterative-magnitude",
        title="Iterative magnitude",
        summary="Measures what each layer can lose, removes the smallest weights of each accordingly, retrains the "
        "rest; repeats. Can set survivors back to early weights.",
        description="Measures how much each layer can lose, removes the smallest weights of each, retrains the "
        "rest, and repeats. Slow, as every round trains, and the surest way to very sparse "
        "classifiers. It can also set survivors back to early weights, as the lottery ticket "
        "experiments do.",
        gains=ZEROS,
        paper=Paper(
            title="Learning both Weights and Connections for Efficient Neural Networks",
            authors="Han, Pool, Tran, Dally",
            year=2015,
            url="https://arxiv.org/abs/1506.02626",
        ),
        task_families=_IMAGES,
        patterns=("unstructured",),
        needs=Needs(calibration=True, gradients=True, training=True),
        parameters=IterativeMagnitudeParameters,
    ),
    MethodInfo(
        id="filter-l1",
        title="Filters by L1 norm",
        summary="Removes the filters of smallest absolute sum, layer by layer, with all that is coupled to them.",
        description="Removes the filters whose weights are smallest in sum, with everything that reads them. "
        "Quick, and good for a moderate share; with rates by sensitivity, layers that can lose more "
        "do. Retrain afterwards.",
        gains=SMALLER,
        paper=Paper(
            title="Pruning Filters for Efficient ConvNets",
            authors="Li, Kadav, Durdanovic, Samet, Graf",
            year=2016,
            url="https://arxiv.org/abs/1608.08710",
        ),
        task_families=_IMAGES,
        patterns=_FILTERS,
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=FilterL1Parameters,
    ),
    MethodInfo(
        id="filter-taylor",
        title="Filters by Taylor expansion",
        summary="Removes a few filters at a time of all layers, those whose loss a first-order estimate finds "
        "smallest, and trains in between.",
        description="Estimates from gradients on labelled images how much the loss would rise without each "
        "filter, removes a few of all layers, trains a little, and repeats. Slower than going by "
        "norms, and better where much has to go; it can also aim at operations instead of parameters.",
        gains=SMALLER,
        paper=Paper(
            title="Pruning Convolutional Neural Networks for Resource Efficient Inference",
            authors="Molchanov, Tyree, Karras, Aila, Kautz",
            year=2016,
            url="https://arxiv.org/abs/1611.06440",
        ),
        task_families=_IMAGES,
        patterns=_FILTERS,
        needs=Needs(calibration=True, gradients=True, training=True),
        parameters=FilterTaylorParameters,
    ),
)
