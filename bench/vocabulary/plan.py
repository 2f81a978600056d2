"""Jobs of the vocabulary's bench. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bench.service import DOCUMENTATION, HANDBOOK
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

TOKENS: Final = 16_384
"""Tokens that stay of the sample model's 49,152."""
BLOCKS_SHARE: Final = 0.2
"""Share of the blocks' parameters that `frontier` removes."""
JUDGED_ON: Final = (EVALUATION, HANDBOOK, DOCUMENTATION)
"""Texts that models are measured on: the first is like the calibration text."""
JUDGED_ALONE: Final = (CALIBRATION, *JUDGED_ON)
"""Texts that models which lost tokens alone are measured on: the one whose tokens were counted, too."""
Q8_0: Final = {"exports": [{"format": "gguf", "types": ["Q8_0"]}]}
TAUGHT: Final = {
    "method": "distill",
    "lora": None,
    "steps": 100,
    "batch_size": 4,
    "sequence_length": 256,
    "learning_rate": 3e-4,
    "own_text": 0,
}
"""Recovery of the model that lost tokens: some 100,000 tokens of the calibration text, by the whole model."""
ALONE, DISTILLED, HALF, HALF_THEN, FRONTIER, FRONTIER_WITH = (
    "vocabulary",
    "vocabulary, distilled",
    "half of the layers",
    "half of the layers, then vocabulary",
    "frontier",
    "frontier, with vocabulary",
)
CASES: Final = (ALONE, DISTILLED, HALF, HALF_THEN, FRONTIER_WITH, FRONTIER)
UNUSED: Final = "unused tokens"
REDUCED: Final[Mapping[str, int | None]] = {ALONE: TOKENS, UNUSED: None}
"""Models that lost tokens alone, and the number that stays; None: all that the calibration text uses."""
FAMILIES: Final = (
    "byte-level BPE",
    "byte-fallback BPE",
    "byte-fallback BPE, ignore_merges",
    "Unigram",
    "WordPiece",
)
"""Kinds of tokenizers that are trained on a text, as `families_cell` makes them."""


@dataclass(frozen=True)
class Case:
    """A job: `body` without the model, which is the sample model or the artifact of an earlier case (`after`)."""

    name: str
    body: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None

    @property
    def removes_tokens(self) -> bool:
        return self.body["method"] == "vocabulary" or "vocabulary" in self.body

    def named(self, artifacts: Mapping[str, str]) -> dict[str, Any]:
        """Return the body with the model; `artifacts` are the ids of the jobs of earlier cases."""
        return {"model": MODEL if self.after is None else f"job:{artifacts[self.after]}", **self.body}


def cases(blocks: float, samples: int, length: int, windows: int) -> list[Case]:
    """Return the jobs.

    `blocks` is the blocks' share of the dense model's parameters. Calibration is on `samples` sequences of `length`
    tokens, evaluation on as many `windows` of each text.
    """
    read = {"calibration": {"dataset": CALIBRATION, "samples": samples, "sequence_length": length}}
    judged = {"evaluation": {"datasets": list(JUDGED_ON), "samples": windows, "sequence_length": length}}
    timed = {"evaluation": {"datasets": [EVALUATION], "samples": 2, "sequence_length": length}, "output": Q8_0}
    tokens = {"method": "vocabulary", "parameters": {"tokens": TOKENS}}
    half = {  # refitted: of a model that is left as it is no file in 8 bits passes its check
        "method": "depth",
        "sparsity": blocks / 2,
        "parameters": {"criterion": "block_influence", "compensation": {"refit": 0.5}},
    }
    frontier = {
        "method": "frontier",
        "pattern": "structured",
        "sparsity": round(BLOCKS_SHARE * blocks, 4),
        "parameters": {"budget": "quick", "drop_layers": 0},
    }
    return [
        Case(ALONE, {**tokens, **read, **timed}),
        Case(DISTILLED, {**tokens, **read, **judged, "recovery": TAUGHT}),
        Case(HALF, {**half, **read, **timed}),
        Case(HALF_THEN, {**tokens, **read, **timed}, after=HALF),
        Case(FRONTIER_WITH, {**frontier, "vocabulary": {"tokens": TOKENS}, **read, **judged}),
        Case(FRONTIER, {**frontier, **read, **judged}),
    ]
