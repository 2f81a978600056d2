"""ALPS: its description and parameters."""

from pydantic import Field

from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.cost import Cost, CostFacts, column_operations
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from secateur_wire.methods import Needs, Paper

_USUAL_ITERATIONS = 60
"""Number of iterations after which the supports of most layers no longer change, measured on SmolLM2 at 50 to 70 %."""


class ALPSParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions):
    """Parameters of `alps`."""

    iterations: int = Field(
        300,
        ge=3,
        le=10_000,
        description="Largest number of turns. They end earlier when the choice of weights hardly changes.",
    )
    penalty: float = Field(
        0.1,
        gt=0,
        le=1000,
        description="ρ at the start: how strongly the solution is pulled towards the sparse weights. It grows as the "
        "choice of weights becomes stable.",
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Added to the diagonal of XᵀX of the inputs, as a share of its mean, so that the system can be "
        "solved.",
    )
    conjugate_gradient_steps: int = Field(
        10,
        ge=0,
        le=1000,
        description="Steps of conjugate gradients in the last solve for the values of the remaining weights.",
    )


class ALPSCost(Cost[ALPSParameters]):
    """Cost of ALPS: every iteration and step multiplies by a matrix of the size of XᵀX, decomposed once."""

    def operations(self, facts: CostFacts[ALPSParameters]) -> int:
        parameters = facts.parameters
        products = min(parameters.iterations, _USUAL_ITERATIONS) + parameters.conjugate_gradient_steps
        return 2 * products * column_operations(facts.description)


INFO = MethodInfo(
    id="alps",
    rank=55,
    title="ALPS",
    summary="Chooses which weights of each layer remain, in turns until the choice is stable, then solves for their "
    "values.",
    description="Solves two problems in turns and brings them together: which weights remain, and which values they "
    "have. When the choice no longer changes, it solves for the values once more. It comes closer to each "
    "layer's outputs on the calibration text than ADMM and SparseGPT, above all at high sparsity, and takes "
    "the longest of the three.",
    gains=ZEROS_OR_N_M,
    paper=Paper(
        title="ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models",
        authors="Meng, Behdin, Wang, Mazumder",
        year=2024,
        url="https://arxiv.org/abs/2406.07831",
    ),
    task_families=("language-model",),
    patterns=("unstructured", "n:m"),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=ALPSParameters,
    removes="weights",
    reads="gram",
    cost=ALPSCost(),
)
