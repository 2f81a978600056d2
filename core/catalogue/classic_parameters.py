"""Parameters of the field's first methods: Optimal Brain Damage, Optimal Brain Surgeon, iterative magnitude pruning.

Those that prune and retrain in turn share their rounds (`Iterated`); those that look at the loss's second derivatives
share how these are estimated (`Curved`).
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from core.engine.architectures.layer_shape import LinearShape
from core.engine.options.allocation import Allocated, LayerSparsities
from core.engine.options.compensation import Compensated
from core.engine.options.iteration import Curved, Iterated
from core.engine.options.layer_selection import Selection
from core.engine.options.propagation import Propagated
from core.errors import InvalidParameters

LARGEST_EXACT = 10_000
"""Prunable weights up to which one inverse Hessian of the whole network is held."""
_EXACT_BYTES = 8
"""Bytes of each entry of the exact inverse Hessian: float64."""


class OBDParameters(Selection, Iterated, Curved):
    """Parameters of `obd`."""


class OBSParameters(Selection, Allocated, Propagated, Compensated, Curved):
    """Parameters of `obs`."""

    mode: Literal["exact", "layer_wise"] | None = Field(
        None,
        description="exact: one inverse Hessian of the whole network, from its derivatives; image classifiers of at "
        f"most {LARGEST_EXACT} prunable weights. layer_wise: one of each layer, from its inputs; curvature, alpha and "
        "reestimate_every do not matter then. Unset: exact where it can be done.",
    )
    alpha: float = Field(
        1e-4,
        gt=0,
        le=1,
        description="exact: the recursion for the inverse Hessian starts from 1/alpha on its diagonal.",
    )
    reestimate_every: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="exact: deletions after which the Hessian is estimated anew. Unset: never.",
    )
    damping: float = Field(
        0.01, gt=0, le=1, description="layer_wise: added to the Hessian's diagonal, as a share of its mean."
    )


class IterativeMagnitudeParameters(Selection, Iterated):
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


def is_exact(parameters: OBSParameters, layers: Sequence[LinearShape]) -> bool:
    """Return whether `obs` holds one inverse Hessian over all weights of an image classifier.

    Raises InvalidParameters where mode 'exact' is requested and the model is too large for it, or with an allocation,
    which that mode does not use.
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
            f"{weights**2 * _EXACT_BYTES / 2**30:.1f} GiB; at most {LARGEST_EXACT} weights: use 'layer_wise'",
            param="parameters.mode",
        )
    return True
