"""Parameters of each method, as pydantic models: the JSON schema a client sees and the check a job goes through.

They are put together of `core.engine.options`: methods that zero weights share what to prune (`Selection`), how
sparsity is spread over layers (`Allocated`), and how the calibration forward is run (`Propagated`); those that remove
heads and channels share `Width`, and those whose work can be scaled `Budgeted`.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator

from core.engine.options.allocation import Allocated
from core.engine.options.base import Budgeted, MethodParameters
from core.engine.options.compensation import Compensated, Compensation, Refitted
from core.engine.options.layer_selection import Selection
from core.engine.options.propagation import Propagated
from core.engine.options.width import Ranked, Width


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
