"""Parameters of each method, as pydantic models: the JSON schema a client sees and the check a job goes through.

Methods that zero weights share what to prune (`Selection`), how sparsity is spread over layers (`Allocated`), and how
the calibration forward is run (`Propagated`); those that remove heads and channels share `Width`, and those whose work
can be scaled `Budgeted`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator

from core.engine.architectures.unit_counts import AttentionMode
from core.validation import spelled

SensitivityJob = Annotated[
    str, spelled(r"^job:[A-Za-z0-9_-]{1,100}$", "job: and the id of a job with method sensitivity")
]
LayerSparsities = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]


class MethodParameters(BaseModel):
    """Parameters of all methods."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random in the run.")


class Selection(MethodParameters):
    """Choice of the linear layers that are prunable."""

    skip_layers: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list, description="Indices of decoder layers left dense."
    )
    skip_modules: list[str] = Field(
        default_factory=list,
        description="Linear layers left dense: a module name such as 'down_proj', or a glob over full names such as "
        "'model.layers.0.*'.",
    )
    include_lm_head: bool = Field(False, description="Prune the output head too. Refused where it is tied.")


class Propagated(BaseModel):
    """Options for how calibration tokens are propagated through the model."""

    propagation: Literal["in_flight", "two_pass"] = Field(
        "in_flight",
        description="in_flight: each block runs once and is pruned as the tokens arrive at each linear layer. "
        "two_pass: all statistics of a block are taken from its dense forward, then it is run again (the papers).",
    )
    forward_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Arithmetic of the calibration forward. auto: bfloat16 where the hardware multiplies it faster, "
        "else float32. Statistics and solves are always float32.",
    )
    micro_batch: int | None = Field(
        None, ge=1, le=4096, description="Sequences per forward; unset: chosen from the sequence length."
    )


class Allocated(BaseModel):
    """Options for how the target sparsity is allocated to decoder layers."""

    allocation: Literal["uniform", "owl", "fisher"] | SensitivityJob | LayerSparsities = Field(
        "uniform",
        description="uniform; owl (Yin 2023: layers with more outlier activations stay denser); fisher: each linear "
        "layer's own rate, at which the next weight costs as much loss as in any other, by the gradients of a few "
        "calibration sequences; job:ID, a sensitivity job of the same layers, whose curves give each decoder layer "
        "such a rate; or an explicit list with one sparsity per decoder layer, which job:ID is replaced by.",
    )
    owl_outlier_ratio: float = Field(5.0, gt=0, description="owl: M, an outlier is above M times the mean.")
    owl_range: float = Field(0.08, ge=0, lt=1, description="owl: λ, sparsity stays within ±λ of the target.")
    fisher_sequences: int = Field(
        2, ge=1, le=4096, description="fisher: calibration sequences whose gradients are taken."
    )

    @property
    def measured_allocation(self) -> str | None:
        """Return the allocation, where a pass over calibration text decides it."""
        return str(self.allocation) if self.allocation in ("owl", "fisher") else None


MOST_STEPS = 32
"""Most steps of conjugate gradients where their number is chosen."""


class Refit(BaseModel):
    """Fitting weights to what the dense model gave."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    refit: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="α: a layer's weights go this far towards those that, fed with what the pruned layers before it "
        "give, come closest to the dense model's outputs. 0: they stay. auto: each layer's own, from calibration "
        "tokens held aside.",
    )
    ridge: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        0.01,
        description="λ of the refit's least squares, as a share of the mean of the inputs' squares. auto: of 0.001, "
        "0.01, 0.1 and 1 what is best on tokens held aside, by input.",
    )
    held_aside: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.125, description="auto: share of the calibration tokens that nothing is fitted to."
    )

    @property
    def refits(self) -> bool:
        return self.refit != 0

    @property
    def chooses(self) -> bool:
        """Return whether something is chosen by held-out tokens."""
        return self.refit == "auto" or (self.refits and self.ridge == "auto")


class Compensation(Refit):
    """What makes up for weights that become zero, beside what the method does itself."""

    conjugate_gradient: Literal["auto"] | Annotated[int, Field(ge=0, le=1000)] = Field(
        0,
        description="Steps by which the weights that stay are fitted once it is known which those are. auto: as many "
        "as tokens held aside gain from, at most 32.",
    )

    @property
    def chooses(self) -> bool:
        return super().chooses or self.conjugate_gradient == "auto"


class Compensated(BaseModel):
    """Options for compensation: an update of the weights that are kept for the loss of those that are pruned."""

    compensation: Compensation | None = Field(
        None,
        description="Language models: fit the weights to what the dense model gave (refit), and those that stay once "
        "more at a fixed mask (conjugate_gradient). Needs calibration, whatever the method.",
    )


class Refitted(BaseModel):
    """Options for compensation: a refit of the layers that are kept for the heads, channels or layers removed."""

    compensation: Refit | None = Field(
        None,
        description="Fit the linear layers that are left to what the dense model gave, without training. Needs "
        "calibration, whatever the method.",
    )


class RandomParameters(Selection, Allocated, Propagated, Compensated):
    """Parameters of `random`."""


class MagnitudeParameters(Selection, Allocated, Propagated, Compensated):
    """Parameters of `magnitude`."""

    scope: Literal["row", "tensor", "model"] = Field(
        "tensor", description="Weights are compared within an output row, a tensor, or the whole model."
    )


class WandaParameters(Selection, Allocated, Propagated, Compensated):
    """Parameters of `wanda`."""

    variant: bool = Field(
        False,
        description="Compare weights of different rows by the cumulative share of their row's score (the paper's "
        "variant) instead of pruning the same number in every row.",
    )


class SparseGPTParameters(Selection, Allocated, Propagated, Compensated):
    """Parameters of `sparsegpt`."""

    block_size: int = Field(
        128, ge=1, le=4096, description="Columns whose mask is chosen jointly; rounded down to a multiple of m."
    )
    damping: float = Field(0.01, gt=0, le=1, description="Added to the Hessian's diagonal, as a share of its mean.")


class ADMMParameters(Selection, Allocated, Propagated, Compensated):
    """Parameters of `admm`."""

    iterations: int = Field(
        20, ge=4, le=1000, description="Of mask and weights in turn; over the first three quarters sparsity rises."
    )
    penalty: float = Field(
        1.0, gt=0, le=1000, description="ρ: how strongly the solved weights are held to the sparse ones."
    )


class FrontierParameters(ADMMParameters):
    """Parameters of `frontier`: ADMM's, and a budget that figures which are not given follow. The allocation is
    `fisher` then, but where a pattern n:m leaves no choice.
    """

    budget: Literal["quick", "thorough"] = Field(
        "quick",
        description="quick: about twice SparseGPT's time; a quarter of the calibration sequences are of text that "
        "the model writes itself. thorough: at most about eight times; beside the calibration sequences three times as "
        "many, at most 96, are of such text.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_budget(cls, given: Any) -> Any:
        preset = FRONTIER.get(given.get("budget", "quick")) if isinstance(given, dict) else None
        if preset is None:
            return given
        filled = {"iterations": preset.iterations, "allocation": "fisher"} | given
        return filled | {"compensation": given.get("compensation") or preset.compensation.model_copy()}

    def sequences(self, samples: int | None) -> tuple[int | None, int]:
        """Return how many calibration sequences are of the text and how many the model generates.

        `samples` is the number of sequences of a text that a job uses (None: all of it), where it does not say how many
        to generate.
        """
        return FRONTIER[self.budget].sequences(samples)


@dataclass(frozen=True)
class Preset:
    """Values behind a budget of `frontier`.

    The model's own text is `share` of the calibration sequences, replacing them where `replaces`, else in addition, at
    most `most_generated` of them.
    """

    compensation: Compensation
    iterations: int
    share: float
    replaces: bool
    most_generated: int

    def sequences(self, samples: int | None) -> tuple[int | None, int]:
        """Return how many sequences are of the text and how many are generated, as FrontierParameters does."""
        if samples is None:
            return None, self.most_generated
        generated = min(int(self.share * samples), self.most_generated)
        return (samples - generated if self.replaces else samples), generated


FRONTIER = {
    "quick": Preset(
        Compensation(refit=0.5, ridge=0.1, conjugate_gradient=2), 8, share=0.25, replaces=True, most_generated=64
    ),
    "thorough": Preset(
        Compensation(refit=0.5, ridge=0.1, conjugate_gradient=20), 20, share=3, replaces=False, most_generated=96
    ),
}


class Width(MethodParameters, Refitted):
    """Options for removable groups, and the multiples to which their counts are rounded.

    `paper_protects`: of 32 layers, how many first and last ones the method's paper leaves alone.
    """

    paper_protects: ClassVar[tuple[int, int]] = (0, 0)

    attention: AttentionMode | None = Field(
        None,
        description="Heads are removed as a KV head with its query heads (kv_groups), as the same number of query "
        "heads in every group (query_heads), or not at all (none). Unset: kv_groups where there are several and the "
        "family allows it.",
    )
    round_to: int | None = Field(
        None, ge=1, le=4096, description="Channels kept are a multiple of this. Unset: 8 on a CPU, 64 on CUDA."
    )
    protected_first: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="First layers that lose nothing, so that the others lose more; needs output.layout 'per_layer'. "
        "Unset: what the method's paper leaves alone (LLM-Pruner and its baselines: 4 of 32, scaled with the depth).",
    )
    protected_last: int | None = Field(
        None, ge=0, le=4096, description="The same of the last layers (LLM-Pruner and its baselines: 2 of 32)."
    )

    def protected(self, layers: int) -> frozenset[int]:
        """Return the layers, of so many, that lose nothing where layers may differ in shape."""
        asked = (self.protected_first, self.protected_last)
        first, last = (
            round(share * layers / 32) if own is None else own
            for own, share in zip(asked, self.paper_protects, strict=True)
        )
        return frozenset(layer for layer in range(layers) if layer < first or layer >= layers - last)


class Ranked(Width):
    """Parameters of methods that score every group: the scope within which their scores are compared."""

    scope: Literal["layer", "model"] = Field(
        "layer",
        description="layer: of every layer that is not protected the same share goes. model: the groups of all of them "
        "are ranked together, by importance per parameter, each layer's divided by its root mean square; needs "
        "output.layout 'per_layer'.",
    )


class Budgeted(BaseModel):
    """Option for how much work a method does."""

    budget: Literal["quick", "standard"] = Field(
        "standard", description="standard: the paper's; quick: what a CPU does in minutes."
    )


class RandomStructuredParameters(Ranked):
    """Parameters of `random-structured`."""

    paper_protects = (4, 2)


class L2StructuredParameters(Ranked):
    """Parameters of `l2-structured`."""

    paper_protects = (4, 2)


class LLMPrunerParameters(Ranked):
    """Parameters of `llm-pruner`."""

    paper_protects = (4, 2)

    importance: Literal["first_order", "mixed"] = Field(
        "first_order", description="first_order: |w·g|; mixed: |w·g − ½·F·w²|, F the mean of per-sample g²."
    )
    aggregation: Literal["element_wise", "vector_wise"] = Field(
        "element_wise",
        description="element_wise: the sum of every weight's importance; vector_wise: the signed importances of a row "
        "or column are added up before the absolute value is taken.",
    )


class DepthParameters(MethodParameters, Budgeted, Refitted):
    """Parameters of `depth`."""

    criterion: Literal["perplexity", "angular", "block_influence"] = Field(
        "perplexity",
        description="perplexity: remove, one after the other, the layer without which perplexity on the "
        "calibration text is lowest (quick: on at most 1024 tokens, and only layers that were among the best alone are "
        "tried again). angular: the run of layers whose input and output point in the most similar directions. "
        "block_influence: the layers that change their input least, each for itself.",
    )


class BonsaiParameters(Width, Budgeted):
    """Parameters of `bonsai`. Figures that are not given are those of the budget."""

    budget: Literal["quick", "standard"] = Field(
        "standard",
        description="standard: the paper's 200 masks per round, 5 % of the units' parameters per round and 32 "
        "sequences per mask. quick: 32, 15 % and 4, which a CPU does in minutes on a small model.",
    )
    masks_per_round: int = Field(
        200, ge=10, le=10_000, multiple_of=2, description="Sub-models measured in every round, in complementary pairs."
    )
    round_share: float = Field(
        0.05, gt=0, le=1, description="p: share of the units' parameters removed per round; candidates are twice that."
    )
    sequences: int = Field(
        32, ge=1, le=4096, description="Calibration sequences each mask is measured on, drawn anew in every round."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_budget(cls, given: Any) -> Any:
        quick = {"masks_per_round": 32, "round_share": 0.15, "sequences": 4}
        return quick | given if isinstance(given, dict) and given.get("budget") == "quick" else given


class RecoverParameters(Selection, Propagated):
    """Parameters of `recover`: none of its own, what it does is said in the job's `recovery`."""

    @model_validator(mode="after")
    def _as_they_are(self) -> Self:
        changed = [
            name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        ]
        if changed:
            raise ValueError(f"recover prunes nothing and takes no parameters ({', '.join(changed)}): use recovery")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "properties": {}}
