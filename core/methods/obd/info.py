"""Optimal Brain Damage: its description and parameters."""

from core.engine.options.iteration import CurvatureOptions, IterationOptions
from core.engine.options.layer_selection import LayerSelection
from core.methods.method_info import ZEROS, MethodInfo
from secateur_wire.methods import Needs, Paper


class OBDParameters(LayerSelection, IterationOptions, CurvatureOptions):
    """Parameters of `obd`."""


INFO = MethodInfo(
    id="obd",
    rank=160,
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
    task_families=("image-classification",),
    patterns=("unstructured",),
    needs=Needs(calibration=True, gradients=True, training=True),
    parameters=OBDParameters,
    removes="weights",
)
