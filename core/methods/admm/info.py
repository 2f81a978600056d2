"""ADMM: its description and parameters."""

from pydantic import Field

from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.cost import Cost, CostFacts, column_operations
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from secateur_wire.methods import Needs, Paper


class ADMMParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions):
    """Parameters of `admm`."""

    iterations: int = Field(
        20, ge=4, le=1000, description="Of mask and weights in turn; over the first three quarters sparsity rises."
    )
    penalty: float = Field(
        1.0, gt=0, le=1000, description="ρ: how strongly the solved weights are held to the sparse ones."
    )


class ADMMCost(Cost[ADMMParameters]):
    """Cost of products with two matrices like XᵀX in every iteration."""

    def operations(self, facts: CostFacts[ADMMParameters]) -> int:
        return 2 * facts.parameters.iterations * column_operations(facts.description)


INFO = MethodInfo(
    id="admm",
    rank=50,
    title="ADMM",
    summary="Finds each layer's mask and weights together, in turns, while sparsity rises.",
    description="Solves each layer for its outputs on the calibration text again and again, each time without the "
    "weights that have become smallest, until all that should go are gone. It finds better masks than SparseGPT, "
    "most of all where much goes, for somewhat more time.",
    gains=ZEROS_OR_N_M,
    paper=Paper(
        title="Fast and Effective Weight Update for Pruned Large Language Models",
        authors="Boža",
        year=2024,
        url="https://arxiv.org/abs/2401.02938",
    ),
    task_families=("language-model",),
    patterns=("unstructured", "n:m"),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=ADMMParameters,
    removes="weights",
    reads="gram",
    cost=ADMMCost(),
)
