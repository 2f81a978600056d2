"""Iterative magnitude: its description and parameters."""

from typing import Annotated, Literal

from pydantic import Field

from core.engine.options.allocation import LayerSparsities
from core.engine.options.iteration import IterationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.method_info import ZEROS, MethodInfo
from secateur_wire.methods import Needs, Paper


class IterativeMagnitudeParameters(LayerSelection, IterationOptions):
    """Parameters of `iterative-magnitude`."""

    allocation: Literal["sensitivity", "uniform"] | LayerSparsities = Field(
        "sensitivity",
        description="sensitivity: each layer is pruned alone at the rates of a scan, and rates are chosen at which the "
        "last weight removed costs the same in every layer. uniform: the same rate everywhere. A list: one "
        "sparsity for each layer.",
    )
    scan_rates: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=50)] = Field(
        default_factory=lambda: [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98],
        description="Rates at which the sensitivity scan prunes each layer.",
    )
    scan_images: int | None = Field(
        1000,
        ge=1,
        le=1_000_000_000,
        description="Number of calibration images for the scan, drawn by the seed, or all (null in JSON).",
    )
    scale_dropout: bool = Field(
        True, description="While retraining, scale the dropout after a layer by √(connections left / connections)."
    )
    remove_dead_neurons: bool = Field(
        True,
        description="Remove all weights of neurons that read nothing or that nothing reads, beyond the sparsity asked "
        "for. The constant output of a neuron without inputs is added to the biases of the next layer. No "
        "output changes.",
    )
    rewind_step: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="After every deletion, set the remaining weights back to early values (Frankle 2019): those the "
        "model has after this many steps of training from the weights that the job was given. The model is "
        "then also trained for retrain_steps before the first deletion. Unset: the weights are not set back.",
    )


INFO = MethodInfo(
    id="iterative-magnitude",
    rank=180,
    title="Iterative magnitude",
    summary="Measures what each layer can lose, removes its smallest weights, retrains the rest, and repeats. Can "
    "set the remaining weights back to early values.",
    description="Measures how much each layer can lose, removes the smallest weights of each, retrains the rest, and "
    "repeats. It is slow, because every round trains, and reliably reaches very sparse classifiers. It can "
    "also set the remaining weights back to early values, as in the lottery ticket experiments.",
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
)
