"""Optimal Brain Surgeon: its description and parameters."""

from collections.abc import Sequence
from math import ceil
from typing import Literal

from pydantic import Field

from core.device_kinds import CUDA
from core.engine.architectures.layer_shape import LinearShape
from core.engine.evaluation.classifier_memory import MEASURED_AT_ONCE
from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.iteration import CurvatureOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.classifier_cost import ClassifierCost, ClassifierFacts
from core.methods.cost import WAITING_FOR_MEMORY, Cost, CostFacts, in_turn
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from secateur_wire.errors import InvalidParameters
from secateur_wire.methods import Needs, Paper
from secateur_wire.sizes import size

LARGEST_EXACT = 10_000
"""Largest number of prunable weights for which one inverse Hessian of the whole network is held."""
_EXACT_BYTES = 8
"""Bytes of each entry of the exact inverse Hessian: float64."""
_VECTORS = 6
"""Vectors of all weights for the whole network's deletions: weights, diagonal, score, column, update and masks."""
_ROW_BYTES = 9 * 4
"""Bytes of a weight while its row is solved, without the rows U of the row's deletions."""


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


class OBSCost(Cost[OBSParameters]):
    """Cost of multiplying, in each row, a growing matrix by a vector for each removed weight."""

    def operations(self, facts: CostFacts[OBSParameters]) -> int:
        deleted = facts.sparsity**2
        rows = sum(linear.out_features * deleted * linear.in_features**3 for linear in facts.description.linears)
        return ceil(WAITING_FOR_MEMORY * rows)

    def matrix_bytes(self, parameters: OBSParameters, sparsity: float, inputs: int, sizes: Sequence[int]) -> int:
        """Return the bytes of H, its factor, H⁻¹ and their product; or of H⁻¹ and the rows U of the deletions.

        As many rows are solved at the same time as the device's bound allows. Each of their weights has nine more
        values and masks. Each weight of the layer has its new value, its mask and its cost of deletion, twice.
        """
        squares, steps = 4 * inputs**2, ceil(sparsity * inputs) + 1
        rows = max(sizes) // inputs
        at_once = min(rows, max(1, CUDA.solver_elements // (steps * inputs)))
        solving = at_once * inputs * (4 * steps + _ROW_BYTES) + 2 * rows * (5 * inputs + 4 * steps)
        return max(4 * squares, 2 * squares + in_turn(sizes, 0) + solving)


class OBSOfClassifiers(ClassifierCost[OBSParameters]):
    """Memory of one inverse Hessian of all weights if it is held, otherwise of a pass layer by layer."""

    def peak_bytes(self, facts: ClassifierFacts[OBSParameters]) -> int:
        """Return the bytes of H⁻¹ and the rows U of the deletions, or of H⁻¹ and the gradients of single images.

        A batch of images has its rows, also in float64, and two products with H⁻¹. In addition there is the memory of
        its forward or, while the next rows are computed, the parts of each row and the rows.
        """
        memory = facts.memory
        if not is_exact(facts.parameters, memory.layers):
            return super().peak_bytes(facts)
        weights = sum(layer.numel + layer.out_features for layer in memory.layers)
        images = min(facts.images, facts.parameters.curvature_images or facts.images, MEASURED_AT_ONCE)
        inverse, rows = _EXACT_BYTES * weights**2, images * weights
        products = rows * (4 + 3 * _EXACT_BYTES)
        making = products + memory.curvature(images) + 2 * 4 * rows
        taking_in = products + memory.graph(images)
        deletions = ceil(facts.sparsity * memory.prunable)
        deleting = _EXACT_BYTES * weights * (min(deletions, facts.parameters.reestimate_every or deletions) + _VECTORS)
        return max(memory.loss(images), inverse + max(making, taking_in, deleting))


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
    cost=OBSCost(),
    classifier_cost=OBSOfClassifiers(),
)
