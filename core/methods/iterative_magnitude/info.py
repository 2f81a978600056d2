"""Iterative magnitude: its description and parameters."""

from typing import Annotated, Literal

from pydantic import Field

from core.engine.options.allocation import LayerSparsities
from core.engine.options.iteration import IterationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.classifier_cost import ClassifierCost, ClassifierFacts, retraining_bytes
from core.methods.method_info import ZEROS, MethodInfo
from secateur_wire.methods import Needs, Paper


class IterativeMagnitudeParameters(LayerSelection, IterationOptions):
    """Parameters of `iterative-magnitude`."""

    allocation: Literal["sensitivity", "uniform"] | LayerSparsities = Field(
        "sensitivity",
        description="sensitivity: each layer alone is pruned at the scan's rates, and rates are chosen so that the "
        "last weight removed costs as much in every layer; uniform; or a list with one sparsity per layer.",
    )
    scan_rates: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=50)] = Field(
        default_factory=lambda: [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98], description="Rates of the sensitivity scan."
    )
    scan_images: int | None = Field(
        1000, ge=1, le=1_000_000_000, description="Calibration images it is measured on, drawn by the seed; null: all."
    )
    scale_dropout: bool = Field(
        True, description="While retraining, dropout behind a layer is scaled by √(connections left / connections)."
    )
    remove_dead_neurons: bool = Field(
        True,
        description="Neurons that read nothing, or that nothing reads, lose all their weights, beyond the sparsity "
        "asked for; what a neuron without inputs sends is added to the biases behind it. No output changes.",
    )
    rewind_step: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Set survivors back to early weights after every deletion (Frankle 2019): those the model has "
        "after so many steps of training from the weights the job was given. The model is then trained by "
        "retrain_steps before the first deletion too. Unset: survivors go on from where they are.",
    )


class IterativeMagnitudeCost(ClassifierCost[IterativeMagnitudeParameters]):
    """Memory of losses, of a layer that is cut, of the search for dead neurons, and of retraining."""

    def peak_bytes(self, facts: ClassifierFacts[IterativeMagnitudeParameters]) -> int:
        """Return the most bytes of these; with rewinding there are early weights throughout."""
        memory, options = facts.memory, facts.parameters
        early = memory.passes.weights if options.rewind_step is not None else 0
        peak = max(memory.loss(facts.images), memory.cutting(), retraining_bytes(memory, options))
        if options.allocation == "sensitivity":  # beside a layer as it was
            peak = max(peak, memory.loss(min(facts.images, options.scan_images or facts.images)) + 4 * memory.largest)
        if options.remove_dead_neurons:
            peak = max(peak, memory.finding_dead_neurons(facts.images))
        return early + peak


INFO = MethodInfo(
    id="iterative-magnitude",
    rank=180,
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
    task_families=("image-classification",),
    patterns=("unstructured",),
    needs=Needs(calibration=True, gradients=True, training=True),
    parameters=IterativeMagnitudeParameters,
    removes="weights",
    classifier_cost=IterativeMagnitudeCost(),
)
