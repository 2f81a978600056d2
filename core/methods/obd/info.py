"""Optimal Brain Damage: its description and parameters."""

from core.engine.options.iteration import CurvatureOptions, IterationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.classifier_cost import ClassifierCost, ClassifierFacts, retraining_bytes
from core.methods.method_info import ZEROS, MethodInfo
from secateur_wire.methods import Needs, Paper


class OBDParameters(LayerSelection, IterationOptions, CurvatureOptions):
    """Parameters of `obd`."""


class OBDCost(ClassifierCost[OBDParameters]):
    """Memory of the Hessian's diagonal, of saliencies that are compared, and of retraining."""

    def peak_bytes(self, facts: ClassifierFacts[OBDParameters]) -> int:
        memory, options = facts.memory, facts.parameters
        images = min(facts.images, options.curvature_images or facts.images)
        diagonal = saliencies = 4 * memory.prunable
        return max(
            memory.curvature(images),
            diagonal + saliencies + max(memory.loss(images), memory.comparing()),
            retraining_bytes(memory, options),
        )


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
    classifier_cost=OBDCost(),
)
