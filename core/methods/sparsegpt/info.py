"""SparseGPT: its description and parameters."""

from pydantic import Field

from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.measurements.sentences import measured_losses
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs, Paper


class SparseGPTParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions):
    """Parameters of `sparsegpt`."""

    block_size: int = Field(
        128,
        ge=1,
        le=4096,
        description="Number of columns whose weights are chosen together. Rounded down to a multiple of m for n:m "
        "patterns.",
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Added to the diagonal of the Hessian (XᵀX of the inputs), as a share of its mean, so that it "
        "can be inverted.",
    )


INFO = MethodInfo(
    id="sparsegpt",
    rank=40,
    title="SparseGPT",
    summary="Removes weights one block of columns after the other, and updates the others to keep each layer's "
    "outputs.",
    description="Goes through each layer column by column, removes the weights that cost least, and changes the others "
    "so that the layer's outputs on the calibration text change little. It is slower than Wanda, because it "
    "solves a linear system for each layer, and usually better at high sparsity and with n:m patterns such "
    f"as 2:4. {measured_losses('sparsegpt', 'zeros', 'unstructured')}",
    gains=ZEROS_OR_N_M,
    paper=Paper(
        title="SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
        authors="Frantar, Alistarh",
        year=2023,
        url="https://arxiv.org/abs/2301.00774",
    ),
    task_families=("language-model", "image-classification"),
    patterns=("unstructured", "n:m"),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=SparseGPTParameters,
    removes="weights",
    reads="gram",
    offers=(
        PlanOffer(
            goals=("size", "sparsity"),
            place=30,
            reason="it loses least of the methods that hold one model in memory",
        ),
    ),
)
