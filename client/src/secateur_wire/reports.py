"""Reports of jobs: every layer, every gate, and the generated texts of both models."""

from pydantic import Field, JsonValue

from secateur_wire.answers import ComparedAnswer
from secateur_wire.base import Number, Record
from secateur_wire.equal_bytes import EqualBytes


class GateResult(Record):
    """One limit of a job with one figure; a target is such a limit too (`target.bytes`).

    `on` is the dataset or task of the figure (`task_mean`: all of them), None where it belongs to the model or its
    files. `figure` is None where it could not be measured; the gate then counts as missed. `margin` is the relative
    measurement error: a limit must be met by more than that. `kept` is None while that is unknown.
    """

    gate: str
    limit: Number
    figure: Number | None = None
    on: str | None = None
    kept: bool | None = None
    message: str = ""
    margin: Number = 0.0

    @property
    def param(self) -> str:
        """Return the path of the limit in the job body."""
        return self.gate if "." in self.gate else f"gates.{self.gate}"

    @property
    def label(self) -> str:
        return f"{self.gate} on {self.on}" if self.on else self.gate

    @property
    def unproven(self) -> bool:
        """Return whether the gate counts as missed because the figure is below its limit by no more than the margin."""
        return self.kept is False and self.figure is not None and self.figure <= self.limit


class GateResults(Record):
    """Gates of a report: the limits by name, each limited figure in `rows`, and a sentence about all that `missed`."""

    missed: str | None = None
    rows: list[GateResult] = Field(default_factory=list)


class Generation(Record):
    """Texts that the models write after a prompt of the job, without the prompt; None where the job had to skip it."""

    prompt: str
    dense: str | None = None
    pruned: str | None = None


class LongerWord(Record):
    """Word of a text that takes more tokens than before; it occurs `count` times."""

    word: str
    count: int
    dense: int
    pruned: int


class TextLength(Record):
    """Tokens of an evaluation text in the dense model's vocabulary and in the new one.

    `words` are those whose additional tokens are most, over all their occurrences.
    """

    dense: int
    pruned: int
    words: list[LongerWord] = Field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Return pruned over dense."""
        return self.pruned / self.dense if self.dense else 1.0


class CoveragePoint(Record):
    """Share of the texts' tokens that are among so many kept tokens."""

    tokens: int
    share: Number


class VocabularyReport(Record):
    """Removal of tokens: the numbers of tokens `before` and `kept`, of tokens that the texts use, and the least.

    `counted` are the texts, with `tokens` in all. `coverage` has the share of these that are kept, by the number of
    kept tokens, and `covered` is it for the tokens that were kept. `scripts` are those whose tokens filled the number
    up, and `lacking` those of the texts of which the vocabulary has bytes alone. `parameters` went with the tokens.
    `texts` are the evaluation texts.
    """

    before: int
    kept: int
    used: int
    least: int
    tokens: int
    covered: Number
    coverage: list[CoveragePoint] = Field(default_factory=list)
    scripts: list[str] = Field(default_factory=list)
    lacking: list[str] = Field(default_factory=list)
    counted: list[dict[str, JsonValue]] = Field(default_factory=list)
    parameters: int
    texts: dict[str, TextLength] = Field(default_factory=dict)

    @property
    def words(self) -> str:
        """Return the outcome as a sentence."""
        longer = ", ".join(f"× {each.ratio:.4f} on {name}" for name, each in self.texts.items())
        return (
            f"{self.kept:,} of {self.before:,} tokens are left; the texts use {self.used:,}, and {self.covered:.2%} of "
            f"their tokens were kept.{f' Tokens per text: {longer}.' if longer else ''}"
        )


class Report(Record):
    """Whole report of a job.

    It has one row per pruned layer, the continuations of the job's prompts by both models, the first answers of
    both to the questions of each set, notes, and all other measurements of the server. `equal_bytes` compares the
    artifact with the best dense file of no more bytes, by evaluation set.
    """

    layers: list[dict[str, JsonValue]] = Field(default_factory=list)
    vocabulary: VocabularyReport | None = Field(default=None, exclude_if=lambda vocabulary: vocabulary is None)
    generations: list[Generation] = Field(default_factory=list)
    answers: dict[str, list[ComparedAnswer]] = Field(default_factory=dict, exclude_if=lambda answers: not answers)
    gates: GateResults | None = None
    equal_bytes: dict[str, EqualBytes] = Field(default_factory=dict, exclude_if=lambda compared: not compared)
    notes: list[str] = Field(default_factory=list)
