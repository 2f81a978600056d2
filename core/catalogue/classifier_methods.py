"""The methods for image classifiers, with their papers; some prune the linear layers of language models too."""

from core.catalogue.filter_parameters import FilterL1Parameters, FilterTaylorParameters
from core.catalogue.method_info import MethodInfo, Needs, Paper

_FILTERS = ("structured",)
_IMAGES = ("image-classification",)

CLASSIFIER_METHODS: tuple[MethodInfo, ...] = (
    MethodInfo(
        id="filter-l1",
        title="Filters by L1 norm",
        summary="Removes the filters of smallest absolute sum, layer by layer, with all that is coupled to them.",
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
