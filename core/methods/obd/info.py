"""Optimal Brain Damage: its description and parameters."""

from core.engine.options.iteration import CurvatureOptions, IterationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.method_info import ZEROS, MethodInfo
from secateur_wire.methods import Needs, Paper


class OBDParameters(LayerSelection, IterationOptions, CurvatureOptions):
    """Parameters of `obd`."""


INFO = MethodInfo(
    id="obd",
    rank=160,
    title="Optimal Brain Damage",
    summary="Removes the weights of the whole network that cost least by the diagonal of the loss's Hessian, "
    "retrains, and repeats.",
    description="Estimates from second derivatives how much the loss would rise without each weight of the whole "
    "network, removes the cheapest, retrains, and repeats. It needs labelled images and training time. At "
    "high sparsity it keeps more accuracy than pruning once.",
    gains=ZEROS,
    paper=Paper(
        title="Optimal Brain Damage",
        authors="LeCun, Denker, Solla",
        year=1989,
        url="https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html",
    ),
    task_families=("image-classification",),
    patterns=("unstructured",),
    needs=Needs(calibration=True, gradients=True, training=True),
    parameters=OBDParameters,
    removes="weights",
)
