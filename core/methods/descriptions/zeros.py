"""Methods that make weights zero, for language models and classifiers: descriptions and parameters."""

from typing import Literal

from pydantic import Field

from core.engine.options.axes import AllocationOptions, CompensationOptions, PropagationOptions
from core.engine.removals.weights import LayerSelection
from core.measurements.reader import measured_losses
from core.methods.method_info import BOTH_TASKS, MethodInfo, PlanOffer, arxiv

HAN_2015 = arxiv(
    "1506.02626", "Learning both Weights and Connections for Efficient Neural Networks", "Han, Pool, Tran, Dally"
)


class ZerosParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions):
    """Parameters of the methods that make weights of a language model or a classifier zero in one pass."""


class RandomParameters(ZerosParameters):
    """Parameters of `random`."""


RANDOM = MethodInfo(
    id="random",
    is_baseline=True,
    title="Random",
    summary="Removes weights at random. The baseline that every other method must beat.",
    description="Chooses the weights by chance, within each layer. It is here to compare with: a method that is not "
    "clearly better than this on your model is not worth its time. It needs no data, and takes only as long "
    "as reading the weights.",
    task_families=BOTH_TASKS,
    patterns=("unstructured", "n:m"),
    parameters=RandomParameters,
)


class MagnitudeParameters(ZerosParameters):
    """Parameters of `magnitude`."""

    scope: Literal["row", "tensor", "model"] = Field(
        "tensor",
        description="Which weights are compared with each other: those of an output row, of a tensor, or of the whole "
        "model.",
    )

    @property
    def ranks_entire_model(self) -> bool:
        return self.scope == "model"


MAGNITUDE = MethodInfo(
    id="magnitude",
    title="Magnitude",
    summary="Removes the weights of smallest absolute value.",
    description="Removes the weights with the smallest absolute values: the oldest and simplest rule. It needs no "
    "data, and takes only as long as reading the weights. Image classifiers stand it well up to about half of their "
    "weights. Large language models do not, because a small weight behind a large activation matters; Wanda costs "
    "little more there and keeps far more quality.",
    paper=HAN_2015,
    task_families=BOTH_TASKS,
    patterns=("unstructured", "n:m"),
    parameters=MagnitudeParameters,
    offers=(
        PlanOffer(goals=("size", "sparsity"), place=50, reason="it needs no text and the least memory"),
        PlanOffer(
            goals=("size", "sparsity"),
            place=10,
            reason="image classifiers take it well up to about half of their weights",
            task="image-classification",
        ),
    ),
)


class WandaParameters(ZerosParameters):
    """Parameters of `wanda`."""

    variant: bool = Field(
        False,
        description="Compare weights across rows, by the cumulative share of each row's score (the paper's variant). "
        "Otherwise the same number is removed from every row.",
    )


WANDA = MethodInfo(
    id="wanda",
    title="Wanda",
    summary="Removes the weights with the smallest |weight| × input norm in every output row. The others do not "
    "change.",
    description="Multiplies each weight's size by how strong its input is on a calibration text, and removes the "
    "weakest of every output row. It takes one forward pass and no training, and does not change the remaining "
    "weights. The cheapest choice that looks at activations; Frontier, SparseGPT or a recovery keeps more quality. "
    f"{measured_losses('wanda', 'zeros', 'unstructured')}",
    paper=arxiv(
        "2306.11695", "A Simple and Effective Pruning Approach for Large Language Models", "Sun, Liu, Bair, Kolter"
    ),
    task_families=BOTH_TASKS,
    patterns=("unstructured", "n:m"),
    parameters=WandaParameters,
    reads="norms",
    offers=(
        PlanOffer(
            goals=("size", "sparsity"),
            place=40,
            reason="it needs the least memory of the methods that look at activations",
        ),
    ),
)


class SparseGPTParameters(ZerosParameters):
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


SPARSEGPT = MethodInfo(
    id="sparsegpt",
    title="SparseGPT",
    summary="Removes weights one block of columns after the other, and updates the others to keep each layer's "
    "outputs.",
    description="Goes through each layer column by column, removes the weights that cost least, and changes the others "
    "so that the layer's outputs on the calibration text change little. It is slower than Wanda, because it "
    "solves a linear system for each layer, and usually better at high sparsity and with n:m patterns such "
    f"as 2:4. {measured_losses('sparsegpt', 'zeros', 'unstructured')}",
    paper=arxiv(
        "2301.00774", "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", "Frantar, Alistarh"
    ),
    task_families=BOTH_TASKS,
    patterns=("unstructured", "n:m"),
    parameters=SparseGPTParameters,
    reads="gram",
    offers=(
        PlanOffer(
            goals=("size", "sparsity"),
            place=30,
            reason="it loses least of the methods that hold one model in memory",
        ),
    ),
)


class ADMMParameters(ZerosParameters):
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


ADMM = MethodInfo(
    id="admm",
    title="ADMM",
    summary="Chooses each layer's weights and their values in turns, while the sparsity rises.",
    description="Solves for each layer's weights again and again so that its outputs on the calibration text stay "
    "close, and each time forces more of the smallest weights to zero. It chooses better weights than SparseGPT, "
    "above all at high sparsity, and takes somewhat longer.",
    paper=arxiv("2401.02938", "Fast and Effective Weight Update for Pruned Large Language Models", "Boža"),
    patterns=("unstructured", "n:m"),
    parameters=ADMMParameters,
    reads="gram",
)
