"""Methods that remove heads, channels, experts or layers of language models: descriptions and parameters."""

from math import ceil
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from core.engine.architectures.description import ModelDescription
from core.engine.options.axes import BudgetOptions, CutRefit, RefitOptions
from core.engine.removals.experts import ExpertOptions
from core.engine.removals.layers import LayerOptions, removable_runs
from core.engine.removals.widths import AdapterOptions, RankedWidthOptions, WidthOptions
from core.measurements.reader import measured_losses
from core.methods.method_info import CALIBRATION, GRADIENTS, TRAINING, MethodInfo, PlanOffer, arxiv
from secateur_wire.errors import InvalidParameters
from secateur_wire.job_body import Layout


class RandomStructuredParameters(RankedWidthOptions):
    """Parameters of `random-structured`."""

    paper_protects = (4, 2)


RANDOM_STRUCTURED = MethodInfo(
    id="random-structured",
    is_baseline=True,
    title="Random, structured",
    summary="Removes heads and channels at random. The baseline that every other structured method must beat.",
    description="Chooses heads and channels by chance. It is here to compare with: a structured method must beat it. "
    "It needs no data.",
    patterns=("structured",),
    parameters=RandomStructuredParameters,
)


class L2StructuredParameters(RankedWidthOptions):
    """Parameters of `l2-structured`."""

    paper_protects = (4, 2)


L2_STRUCTURED = MethodInfo(
    id="l2-structured",
    title="L2 norm, structured",
    summary="Removes the heads and channels whose weights have the smallest L2 norm. A baseline, not advice.",
    description="Removes the heads and channels with the smallest weights as a whole. It needs no data. It is often no "
    "better than chance and sometimes worse, because the size of a channel says little about what the model "
    "uses it for.",
    patterns=("structured",),
    parameters=L2StructuredParameters,
)


class LLMPrunerParameters(RankedWidthOptions):
    """Parameters of `llm-pruner`."""

    paper_protects = (4, 2)

    importance: Literal["first_order", "mixed"] = Field(
        "first_order",
        description="Importance of a weight w with gradient g. first_order: |w·g|. mixed: |w·g − ½·F·w²|, where F is "
        "the mean of g² over samples (the diagonal of the Fisher information).",
    )
    aggregation: Literal["element_wise", "vector_wise"] = Field(
        "element_wise",
        description="How a unit's importance is computed from its weights. element_wise: the sum of their importances. "
        "vector_wise: the signed importances of a row or column are added before the absolute value is taken.",
    )


LLM_PRUNER = MethodInfo(
    id="llm-pruner",
    title="LLM-Pruner",
    summary="Removes the heads and channels that matter least to the loss, estimated from gradients (its Taylor "
    "expansion).",
    description="Computes gradients on a little calibration text to estimate how much the loss would rise without each "
    "head and each group of channels, and removes the cheapest. The paper trains adapters afterwards; do so "
    "too (recovery).",
    paper=arxiv("2305.11627", "LLM-Pruner: On the Structural Pruning of Large Language Models", "Ma, Fang, Wang"),
    patterns=("structured",),
    needs=GRADIENTS,
    parameters=LLMPrunerParameters,
)


class FLAPParameters(WidthOptions):
    """Parameters of `flap`."""

    cuts_experts: ClassVar[bool] = True

    scope: Literal["layer", "model"] | None = Field(
        None,
        description="layer: every layer that is not protected loses the same share (the paper's UL-UM). model: heads "
        "and channels of all layers are ranked together, by scores standardised within the attention or FFN of each "
        "layer (the paper's AL-AM); needs output.layout 'per_layer'. Unset: model if output.layout is 'per_layer', "
        "else layer.",
    )
    metric: Literal["wifv", "ifv", "wifn"] = Field(
        "wifv",
        description="Score of an input feature x of the output projection, where w is the column that reads it. wifv: "
        "var(x)·‖w‖². ifv: var(x). wifn: mean|w|·rms(x).",
    )
    bias: bool | None = Field(
        None,
        description="Keep the mean of what is removed, as a bias of the output projection, if the architecture has a "
        "place for one. Unset: only if no refit is made, as in the paper; a refit makes up for more.",
    )

    @property
    def leaves_biases(self) -> bool:
        return not (self.compensation and self.compensation.refits) if self.bias is None else self.bias

    @property
    def default_refit(self) -> CutRefit | None:
        return None if self.bias else super().default_refit

    def with_refit(self) -> Self:
        filled = super().with_refit()
        return filled.model_copy(update={"bias": filled.leaves_biases})

    def ranks_layers(self, layout: Layout) -> bool:
        return self.scope == "model" or (self.scope is None and layout == "per_layer")

    @model_validator(mode="after")
    def _compensates_once(self) -> Self:
        if self.bias and self.compensation is not None and self.compensation.refits:
            raise ValueError(
                "the bias and compensation.refit both make up for what is removed: use one of them, bias false or no "
                "compensation"
            )
        return self


FLAP = MethodInfo(
    id="flap",
    title="FLAP",
    summary="Removes the heads and channels whose outputs vary least, and keeps their mean as a bias.",
    description="Measures on calibration text how much the output of each head and channel varies around its mean, "
    "weighted by the weights that read it, and removes those that vary least. Their mean stays as a bias. It "
    "takes forward passes only, holds one block in memory at a time, and trains nothing. Layers may keep "
    f"different numbers of heads and channels. {measured_losses('flap', 'structured', 'structured')}",
    paper=arxiv(
        "2312.11983",
        "Fluctuation-based Adaptive Structured Pruning for Large Language Models",
        "An, Zhao, Yu, Tang, Wang",
    ),
    patterns=("structured",),
    needs=CALIBRATION,
    parameters=FLAPParameters,
    offers=(
        PlanOffer(
            goals=("speed",),
            place=30,
            reason="it removes channels by forward passes alone, which takes less memory",
            pattern="structured",
            parameters={"attention": "none", "bias": False},
            sequences=128,
        ),
    ),
)


FEWEST_MASKS = 10
"""Masks that a round has at least: five folds of pairs are held out in turn."""


class BonsaiParameters(WidthOptions, BudgetOptions):
    """Parameters of `bonsai`. Those that are unset follow from the budget."""

    budget: Literal["quick", "standard"] = Field(
        "standard",
        description="standard: the paper's 200 masks in each round, 5 % of the units' parameters removed in each "
        "round, and 32 sequences for each mask. quick: 32 masks, 15 % and 4 sequences, which a CPU does in minutes "
        "on a small model.",
    )
    masks_per_round: int = Field(
        200,
        ge=FEWEST_MASKS,
        le=10_000,
        multiple_of=2,
        description="Sub-models measured in every round, in complementary pairs.",
    )
    round_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="p: share of the units' parameters that each round removes. Twice that share are candidates.",
    )
    sequences: int = Field(
        32,
        ge=1,
        le=4096,
        description="Calibration sequences on which each mask is measured, drawn anew in every round.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_budget(cls, given: Any) -> Any:
        quick = {"masks_per_round": 32, "round_share": 0.15, "sequences": 4}
        return quick | given if isinstance(given, dict) and given.get("budget") == "quick" else given

    def forwards(self, description: ModelDescription, share: float, calibration: int, window: int) -> int:
        """Return the tokens of all rounds; each runs its sequences once for the prior and once for each mask."""
        rounds = ceil(share * description.parameters / description.prunable_parameters / self.round_share)
        return rounds * (1 + self.masks_per_round) * min(self.sequences * window, calibration)


BONSAI = MethodInfo(
    id="bonsai",
    title="Bonsai",
    summary="Removes the heads and channels that perplexity needs least, estimated by a regression over many masked "
    "versions of the model.",
    description="Runs many versions of the model with random parts switched off, and learns from their perplexities "
    "which heads and channels matter. It needs forward passes only, so no more memory than running the "
    "model. It needs many of them: hours for a large model with the paper's budget, minutes with the quick "
    "one.",
    paper=arxiv(
        "2402.05406",
        "Everybody Prune Now: Structured Pruning of LLMs with only Forward Passes",
        "Dery, Kolawole, Kagy, Smith, Neubig, Talwalkar",
    ),
    patterns=("structured",),
    needs=CALIBRATION,
    parameters=BonsaiParameters,
    holds="model",
)


class LoRAPruneParameters(AdapterOptions):
    """Parameters of `loraprune`."""

    momentum: float = Field(
        0.9, ge=0, lt=1, description="Weight of the earlier value in the moving average of the importance."
    )


LORAPRUNE = MethodInfo(
    id="loraprune",
    title="LoRAPrune",
    summary="Removes heads and channels a few at a time while low-rank adapters are trained, scored by the adapters' "
    "gradients alone.",
    description="Trains small adapters while it removes heads and channels a few at a time, and estimates their "
    "importance from the adapters' gradients, which take little memory. It recovers quality as it prunes. It "
    "takes as long as a fine-tuning run.",
    paper=arxiv(
        "2305.18403",
        "LoRAPrune: Structured Pruning Meets Low-Rank Parameter-Efficient Fine-Tuning",
        "Zhang, Chen, Shen, Yang, Ou, Yu, Zhuang",
    ),
    patterns=("structured",),
    needs=TRAINING,
    parameters=LoRAPruneParameters,
    holds="model",
)


class LoRAShearParameters(AdapterOptions):
    """Parameters of `lorashear`."""

    periods: int = Field(
        4, ge=1, le=1000, description="Number of periods. Each removes an equal part of the groups that can go."
    )
    epsilon: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="A group x that can go becomes zero when its step to x̂ has ⟨x̂, x⟩ < ε·‖x‖². A larger ε makes "
        "that happen sooner.",
    )
    exempt: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of each layer's bundles of heads, and of channels, that is spared: those whose absence "
        "costs most. A bundle is a part of the layer's heads or channels that is tried at once.",
    )
    bundles: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Largest number of bundles into which the heads, and the channels, of a layer are divided, to see "
        "what the absence of each costs. Unset: 8; with quick, 4.",
    )

    @property
    def most_bundles(self) -> int:
        return self.bundles or (4 if self.budget == "quick" else 8)

    @property
    def probed_tokens(self) -> int:
        """Return the number of calibration tokens on which each bundle is left out, unless one sequence is longer."""
        return 256 if self.budget == "quick" else 8192

    def forwards(self, description: ModelDescription, share: float, calibration: int, window: int) -> int:
        """Return the tokens for leaving out each bundle once, which runs half of the layers again on average."""
        return description.layers * self.most_bundles * self.probed_tokens if self.exempt else 0

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        steps = self.training(2).steps
        if steps < 10 * self.periods:
            raise ValueError(f"periods: {self.periods} need at least {10 * self.periods} steps, but there are {steps}")
        return self


LORASHEAR = MethodInfo(
    id="lorashear",
    title="LoRAShear",
    summary="Shrinks heads and channels to zero while low-rank adapters move what they know into the rest. Spares "
    "those whose absence costs most.",
    description="Finds the heads and channels that the model needs most and spares them. Then it shrinks the others "
    "towards zero while adapters learn what those knew. It takes as long as a fine-tuning run, and the paper "
    "recovers in two stages afterwards.",
    paper=arxiv(
        "2310.18356",
        "LoRAShear: Efficient Large Language Model Structured Pruning and Knowledge Recovery",
        "Chen, Ding, Yadav, Zharkov, Liang",
    ),
    patterns=("structured",),
    needs=TRAINING,
    parameters=LoRAShearParameters,
    holds="model",
)


_GAINS = (
    "The model gets smaller: it takes less memory and its file is smaller on any hardware, without special "
    "kernels. Each token still goes to as many experts as before, so the number of operations stays. Where "
    "memory is the limit, as with few requests at once, it runs faster too."
)


class ExpertDropParameters(ExpertOptions):
    """Parameters of `expert-drop`."""

    score: Literal["reap", "frequency", "random"] = Field(
        "reap",
        description="Experts with the lowest score are removed. reap: the mean, over the calibration tokens routed to "
        "the expert, of its gate times the norm of its output. frequency: how many tokens are routed to it. "
        "random: the baseline.",
    )
    merge: bool = Field(
        False,
        description="Merge each expert that is removed into the remaining one with the most similar weights: both "
        "become their mean, weighted by the number of tokens that are routed to each.",
    )


EXPERT_DROP = MethodInfo(
    id="expert-drop",
    title="Expert drop",
    summary="Removes whole experts of a mixture: those that add least to the tokens they get.",
    description="Removes whole experts from a mixture of experts, the same number from each layer, with their rows of "
    "the router. It removes those that add least to the tokens they get on calibration text. It takes "
    "forward passes only and holds one block in memory at a time. What remains is an ordinary, smaller "
    "mixture. Tokens of removed experts are routed to others; if the gates are not normalised, the outputs "
    "of all tokens change.",
    gains=_GAINS,
    paper=arxiv(
        "2510.13999",
        "REAP the Experts: Why Pruning Prevails for One-Shot MoE compression",
        "Lasby, Lazarevich, Sinnadurai, Lie, Ioannou, Thangarasa",
    ),
    patterns=("structured",),
    needs=CALIBRATION,
    parameters=ExpertDropParameters,
    removes="experts",
)


QUICK_TOKENS = 1024
"""Number of tokens that `budget: quick` measures perplexity on, unless one sequence is longer."""


class DepthParameters(LayerOptions, BudgetOptions, RefitOptions):
    """Parameters of `depth`."""

    criterion: Literal["perplexity", "angular", "block_influence"] = Field(
        "perplexity",
        description="perplexity: remove one layer after the other, each time the one without which perplexity on the "
        "calibration text is lowest (quick: on at most 1024 tokens, and only layers that were among the best "
        "when removed alone are tried again). angular: remove the run of layers whose input and output point "
        "in the most similar directions. block_influence: remove the layers that change their input least, "
        "each judged alone.",
    )

    def check_removed_layers(self, description: ModelDescription, count: int) -> None:
        super().check_removed_layers(description, count)
        if self.criterion == "angular" and not removable_runs(description, count):
            raise InvalidParameters(
                f"parameters.criterion: {count} layers in a row cannot be removed, because "
                f"{description.architecture} needs a layer with {', '.join(description.known_as.required)}: use "
                "'perplexity' or 'block_influence', which may remove layers that are not in a row",
                param="parameters.criterion",
            )


DEPTH = MethodInfo(
    id="depth",
    title="Depth",
    summary="Removes whole layers: those that perplexity needs least, or that change their input least.",
    description="Removes whole layers. What remains is an ordinary model with fewer layers, so it surely runs "
    "faster, in proportion to the layers removed. Large models lose surprisingly little with a few of their layers "
    "gone; small models lose much. Train it afterwards (recovery). "
    f"{measured_losses('depth', 'structured', 'structured')}",
    paper=arxiv(
        "2403.17887",
        "The Unreasonable Ineffectiveness of the Deeper Layers",
        "Gromov, Tirumala, Shapourian, Glorioso, Roberts",
    ),
    patterns=("structured",),
    needs=CALIBRATION,
    parameters=DepthParameters,
    removes="layers",
    holds="model",
    offers=(
        PlanOffer(
            goals=("speed",),
            place=40,
            reason="it removes whole layers, which leaves the shapes of the others alone",
            pattern="structured",
            parameters={"budget": "quick"},
        ),
    ),
)
