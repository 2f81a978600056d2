"""ADMM: its description and parameters."""

from pydantic import Field

from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from secateur_wire.methods import Needs, Paper


class ADMMParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions):
    """Parameters of `admm`."""

    iterations: int = Field(
        20,
        ge=4,
        le=1000,
        description="Number of turns of choosing weights and solving for their values. The sparsity rises over the "
        "first three quarters of them.",
    )
    penalty: float = Field(
        1.0, gt=0, le=1000, description="ρ: how strongly the solution is pulled towards the sparse weights."
    )

    def products(self, inputs: int, share: float) -> float:
        """Return two products for each iteration."""
        return 2 * self.iterations


INFO = MethodInfo(
    id="admm",
    rank=50,
    title="ADMM",
    summary="Chooses each layer's weights and their values in turns, while the sparsity rises.",
    description="Solves for each layer's weights again and again so that its outputs on the calibration text stay "
    "close, and each time forces more of the smallest weights to zero. It chooses better weights than SparseGPT, "
    "above all at high sparsity, and takes somewhat longer.",
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
)
