"""Reports of jobs: every layer, every gate, and what both models write."""

from pydantic import Field, JsonValue

from secateur_wire.base import Number, Record


class GateResult(Record):
    """One limit of a job beside one figure; a target is such a limit too (`target.bytes`).

    `on` is the dataset or task of the figure (`task_mean`: all of them), None where it is of the model or its files.
    `figure` is None where it could not be measured, which keeps no gate; `margin` is by how much, relative to it, the
    measurement may be off: a limit is kept beyond that only. `kept` is None while that is not known.
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
        """Tell whether it is missed although the figure is below the limit: not by more than its margin."""
        return self.kept is False and self.figure is not None and self.figure <= self.limit


class GateResults(Record):
    """The gates of a report: the limits by name, each figure that has one in `rows`, and all that `missed` in words."""

    missed: str | None = None
    rows: list[GateResult] = Field(default_factory=list)


class Generation(Record):
    """Texts the models write after a prompt of the job: the new text alone, None where the job had to skip it."""

    prompt: str
    dense: str | None = None
    pruned: str | None = None


class Report(Record):
    """Whole report of a job.

    It has one row per pruned layer, what both models write after the job's prompts, notes, and whatever else the server
    measured.
    """

    layers: list[dict[str, JsonValue]] = Field(default_factory=list)
    generations: list[Generation] = Field(default_factory=list)
    gates: GateResults | None = None
    notes: list[str] = Field(default_factory=list)
