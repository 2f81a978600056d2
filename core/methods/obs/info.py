"""Optimal Brain Surgeon: its description and parameters."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from core.device_kinds import WAITING_FOR_MEMORY
from core.engine.architectures.layer_shape import LinearShape
from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.iteration import CurvatureOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from secateur_wire.errors import InvalidParameters
from secateur_wire.methods import Needs, Paper
from secateur_wire.sizes import size

LARGEST_EXACT = 10_000
"""Largest number of prunable weights for which one inverse Hessian of the whole network is held."""
_EXACT_BYTES = 8
"""Bytes of each entry of the exact inverse Hessian: float64."""


class OBSParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions, CurvatureOptions):
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


INFO = MethodInfo(
    id="obs",
    rank=170,
    title="Optimal Brain Surgeon",
    summary="Removes one weight after the other, the cheapest by the inverse Hessian, and changes all others to make "
    "up for it: a small network as a whole, a larger one layer by layer.",
    description="Removes one weight at a time and changes all others to make up for it. On a small network it uses "
    "the inverse Hessian of the whole network: the most careful of all methods, and the slowest. On anything larger "
    "it goes layer by layer; SparseGPT does nearly the same, faster.",
    gains=ZEROS_OR_N_M,
    paper=Paper(
        title="Second Order Derivatives for Network Pruning: Optimal Brain Surgeon",
        authors="Hassibi, Stork",
        year=1992,
        url="https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html",
    ),
    task_families=("language-model", "image-classification"),
    patterns=("unstructured", "n:m"),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=OBSParameters,
    removes="weights",
    reads="gram",
)
