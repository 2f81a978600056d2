"""Methods for image classifiers alone, and Optimal Brain Surgeon: descriptions and parameters."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from core.device_kinds import WAITING_FOR_MEMORY
from core.engine.architectures.structure import LinearShape
from core.engine.options.axes import CurvatureOptions, IterationOptions, LayerSparsities, MethodParameters, Retraining
from core.engine.removals.weights import LayerSelection
from core.methods.descriptions.zeros import HAN_2015, ZerosParameters
from core.methods.method_info import BOTH_TASKS, CALIBRATION, CLASSIFIERS, TRAINING, MethodInfo, PlanOffer, arxiv
from secateur_wire.errors import InvalidParameters
from secateur_wire.methods import Paper
from secateur_wire.sizes import size


class OBDParameters(LayerSelection, IterationOptions, CurvatureOptions):
    """Parameters of `obd`."""


OBD = MethodInfo(
    id="obd",
    title="Optimal Brain Damage",
    summary="Removes the weights of the whole network that cost least by the diagonal of the loss's Hessian, "
    "retrains, and repeats.",
    description="Estimates from second derivatives how much the loss would rise without each weight of the whole "
    "network, removes the cheapest, retrains, and repeats. It needs labelled images and training time. At "
    "high sparsity it keeps more accuracy than pruning once.",
    paper=Paper(
        title="Optimal Brain Damage",
        authors="LeCun, Denker, Solla",
        year=1989,
        url="https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html",
    ),
    task_families=CLASSIFIERS,
    patterns=("unstructured",),
    needs=TRAINING,
    parameters=OBDParameters,
)


LARGEST_EXACT = 10_000
"""Largest number of prunable weights for which one inverse Hessian of the whole network is held."""
_EXACT_BYTES = 8
"""Bytes of each entry of the exact inverse Hessian: float64."""


class OBSParameters(ZerosParameters, CurvatureOptions):
    """Parameters of `obs`."""

    mode: Literal["exact", "layer_wise"] | None = Field(
        None,
        description="exact: one inverse Hessian of the whole network, from its derivatives; for image classifiers of "
        f"at most {LARGEST_EXACT} prunable weights. layer_wise: one inverse Hessian for each layer, from its inputs; "
        "curvature, alpha and reestimate_every have no effect then. Unset: exact if it is possible.",
    )
    alpha: float = Field(
        1e-4,
        gt=0,
        le=1,
        description="exact: the recursion for the inverse Hessian starts with 1/alpha on its diagonal.",
    )
    reestimate_every: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="exact: number of deletions after which the Hessian is estimated again. Unset: never.",
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=1,
        description="layer_wise: added to the Hessian's diagonal, as a share of its mean, so that it can be inverted.",
    )

    @property
    def differentiates_images(self) -> bool:
        return self.mode == "exact"

    def products(self, inputs: int, share: float) -> float:
        """Return the products of each row's growing matrix with a vector for each removed weight."""
        return WAITING_FOR_MEMORY * share**2 * inputs


def is_exact(parameters: OBSParameters, layers: Sequence[LinearShape]) -> bool:
    """Return whether `obs` holds one inverse Hessian over all weights of an image classifier.

    Raises InvalidParameters for mode 'exact' if the model is too large for it, or if an allocation is given, which that
    mode does not use.
    """
    weights = sum(layer.numel for layer in layers)
    if parameters.mode is None:
        return weights <= LARGEST_EXACT and parameters.allocation == "uniform"
    if parameters.mode == "layer_wise":
        return False
    if parameters.allocation != "uniform":
        raise InvalidParameters(
            "parameters.allocation: mode 'exact' chooses among the weights of all layers: leave allocation out",
            param="parameters.allocation",
        )
    if weights > LARGEST_EXACT:
        raise InvalidParameters(
            f"parameters.mode: 'exact' holds the inverse Hessian of {weights} weights at once, "
            f"{size(weights**2 * _EXACT_BYTES)}; at most {LARGEST_EXACT} weights: use 'layer_wise'",
            param="parameters.mode",
        )
    return True


OBS = MethodInfo(
    id="obs",
    title="Optimal Brain Surgeon",
    summary="Removes one weight after the other, the cheapest by the inverse Hessian, and changes all others to make "
    "up for it: a small network as a whole, a larger one layer by layer.",
    description="Removes one weight at a time and changes all others to make up for it. On a small network it uses "
    "the inverse Hessian of the whole network: the most careful of all methods, and the slowest. On anything larger "
    "it goes layer by layer; SparseGPT does nearly the same, faster.",
    paper=Paper(
        title="Second Order Derivatives for Network Pruning: Optimal Brain Surgeon",
        authors="Hassibi, Stork",
        year=1992,
        url="https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html",
    ),
    task_families=BOTH_TASKS,
    patterns=("unstructured", "n:m"),
    parameters=OBSParameters,
    reads="gram",
)


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


ITERATIVE_MAGNITUDE = MethodInfo(
    id="iterative-magnitude",
    title="Iterative magnitude",
    summary="Measures what each layer can lose, removes its smallest weights, retrains the rest, and repeats. Can "
    "set the remaining weights back to early values.",
    description="Measures how much each layer can lose, removes the smallest weights of each, retrains the rest, and "
    "repeats. It is slow, because every round trains, and reliably reaches very sparse classifiers. It can "
    "also set the remaining weights back to early values, as in the lottery ticket experiments.",
    paper=HAN_2015,
    task_families=CLASSIFIERS,
    patterns=("unstructured",),
    needs=TRAINING,
    parameters=IterativeMagnitudeParameters,
)


class FilterParameters(MethodParameters):
    """Parameters of all methods that remove filters."""

    skip_modules: list[str] = Field(
        default_factory=list,
        description="Layers that keep all their filters: a module name such as 'convolution', or a pattern over full "
        "names. Layers coupled to them keep theirs too.",
    )
    round_to: int = Field(
        1, ge=1, le=4096, description="The number of filters, heads or channels that remain is a multiple of this."
    )
    measured_images: int = Field(
        256,
        ge=1,
        le=1_000_000,
        description="Calibration images on which scores and losses are measured, drawn anew in every round.",
    )
    retrain_learning_rate: float | None = Field(
        None, gt=0, le=1, description="Peak learning rate of AdamW in each round. Unset: 0.001."
    )
    retrain_batch_size: int = Field(64, ge=1, le=65_536, description="Images in a training step.")

    @property
    def layers_left_dense(self) -> Sequence[str]:
        return self.skip_modules


class FilterL1Parameters(FilterParameters):
    """Parameters of `filter-l1`."""

    selection: Literal["independent", "greedy"] = Field(
        "independent",
        description="independent: all filters are scored as they are. greedy: layers are scored in order, without the "
        "parts of filters that read what was already removed.",
    )
    order: Literal["smallest", "random", "largest"] = Field(
        "smallest",
        description="Which filters of a layer are removed first. random and largest are for comparison, as in the "
        "paper.",
    )
    rates: Literal["sensitivity", "uniform"] | LayerSparsities = Field(
        "uniform",
        description="Share of the filters that each layer loses. uniform: the same share. sensitivity: shares at which "
        "every layer costs the same loss, from a scan that prunes each layer alone. A list: one rate for "
        "each group of coupled layers, in order from the image on, scaled together to meet the sparsity; 0 "
        "spares the group.",
    )
    rounds: int = Field(1, ge=1, le=1000, description="Number of rounds that prune and retrain, each an equal part.")
    retrain_steps: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Training steps after each round. The job's recovery, if any, comes after the last.",
    )

    @property
    def retraining(self) -> Retraining:
        return Retraining(self.rounds, self.retrain_steps, self.retrain_batch_size)


FILTER_L1 = MethodInfo(
    id="filter-l1",
    title="Filters by L1 norm",
    summary="Removes the filters with the smallest sum of absolute weights, layer by layer, with everything coupled "
    "to them.",
    description="Removes the filters with the smallest sum of weights, with everything that reads them. It is quick, "
    "and good for a moderate share. With rates by sensitivity, layers that can lose more do. Retrain afterwards.",
    paper=arxiv("1608.08710", "Pruning Filters for Efficient ConvNets", "Li, Kadav, Durdanovic, Samet, Graf"),
    task_families=CLASSIFIERS,
    patterns=("structured",),
    needs=CALIBRATION,
    parameters=FilterL1Parameters,
    removes="filters",
    offers=(
        PlanOffer(
            goals=("speed",),
            place=10,
            reason="it removes filters by their weights alone, and training afterwards wins back what that costs",
            task="image-classification",
            pattern="structured",
        ),
    ),
)


class FilterTaylorParameters(FilterParameters):
    """Parameters of `filter-taylor`."""

    filters_per_round: int | None = Field(
        None, ge=1, le=1_000_000, description="Filters removed in a round. Unset: a fiftieth of those at the start."
    )
    retrain_steps: int = Field(30, ge=0, le=1_000_000, description="Training steps between rounds.")
    flops_weight: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0,
        description="λ: a filter's score falls by this much for each million operations that are saved with it. The "
        "paper uses 0.001.",
    )
    flops_reduction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Least share of the operations to remove, in addition to the sparsity, which may then be 0.",
    )

    @property
    def retraining(self) -> Retraining:
        """Return the training of one round; the number of rounds depends on the model."""
        return Retraining(1, self.retrain_steps, self.retrain_batch_size)


FILTER_TAYLOR = MethodInfo(
    id="filter-taylor",
    title="Filters by Taylor expansion",
    summary="Removes a few filters of all layers at a time, those with the smallest estimated effect on the loss "
    "(first order), and trains in between.",
    description="Estimates from gradients on labelled images how much the loss would rise without each filter, "
    "removes a few of all layers, trains a little, and repeats. It is slower than going by norms, and better if much "
    "has to go. It can also reduce operations instead of parameters.",
    paper=arxiv(
        "1611.06440",
        "Pruning Convolutional Neural Networks for Resource Efficient Inference",
        "Molchanov, Tyree, Karras, Aila, Kautz",
    ),
    task_families=CLASSIFIERS,
    patterns=("structured",),
    needs=TRAINING,
    parameters=FilterTaylorParameters,
    removes="filters",
)
