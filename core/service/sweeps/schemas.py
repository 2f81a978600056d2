"""Sweeps as requests and answers show them."""

from typing import Annotated, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from core.service.jobs.trade_off import TradeOff
from secateur_wire import sweeps as wire
from secateur_wire.job_body import ModelLimits
from secateur_wire.requests import RequestObject, spelled
from secateur_wire.sweeps import SearchObjective

MOST_POINTS = 500
"""Maximum number of points of one sweep; for a search, methods times sparsities."""

_Path = Annotated[
    str,
    spelled(
        r"^[a-z_]+(\.[A-Za-z0-9_\-]+){0,4}$",
        "a field of a job, its levels parted by dots, such as sparsity or parameters.block_size",
        max_length=200,
    ),
]
_Method = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_Sparsity = Annotated[float, Field(gt=0, lt=1)]


class Constraints(ModelLimits):
    """Limits for the artifact of a search, as in gates; at least one."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.model_fields_set - {name for name, value in self if value is None}:
            raise ValueError(f"name at least one of {', '.join(type(self).model_fields)}")
        return self


class Probe(RequestObject):
    """A cheaper evaluation than the job's, used during the search."""

    samples: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Number of samples, in place of evaluation.samples."
    )
    task_limit: Annotated[int, Field(ge=2, le=1_000_000)] | None = Field(
        None, description="Number of questions, in place of evaluation.task_limit."
    )


class Search(RequestObject):
    """Search for the cheapest model that meets limits, by bisection of each method's sparsity.

    It assumes that quality falls with sparsity and that cost does not rise. With `probe`, the winner is measured again
    by the job's own evaluation, with the limits as its gates.
    """

    objective: SearchObjective
    subject_to: Constraints
    methods: Annotated[list[_Method], Field(min_length=1, max_length=50)]
    sparsities: Annotated[list[_Sparsity], Field(min_length=1, max_length=MOST_POINTS)] | None = Field(
        None, description="Sparsities to choose from. Unset: from lowest to highest, in steps of resolution."
    )
    lowest: _Sparsity = 0.1
    highest: _Sparsity = 0.9
    resolution: Annotated[float, Field(ge=0.001, lt=1)] = 0.05
    max_jobs: Annotated[int, Field(ge=1, le=MOST_POINTS)] = 50
    probe: Probe | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lowest > self.highest:
            raise ValueError(f"lowest ({self.lowest:g}) is above highest ({self.highest:g})")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: one is named twice")
        if self.probe is not None and self.probe.samples is None and self.probe.task_limit is None:
            raise ValueError("probe: give samples or task_limit, or leave it out")
        if self.probe is not None and self.max_jobs < 2:
            raise ValueError(
                "max_jobs: a search with a probe needs at least 2, because one job measures the winner in full"
            )
        return self

    def candidates(self) -> list[float]:
        """Return the sparsities to choose from, in ascending order."""
        if self.sparsities is not None:
            return sorted(set(self.sparsities))
        count = int((self.highest - self.lowest) / self.resolution + 1e-9) + 1
        return [round(self.lowest + step * self.resolution, 6) for step in range(count)]


class SweepBody(RequestObject):
    """A sweep to run: a job body with the values to vary, or a search."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    job: dict[str, JsonValue] = Field(description="A job body without the fields that vary. See POST /v1/jobs.")
    grid: (
        Annotated[
            dict[_Path, Annotated[list[JsonValue], Field(min_length=1, max_length=MOST_POINTS)]],
            Field(min_length=1, max_length=10),
        ]
        | None
    ) = Field(
        None,
        description='Values for fields of the job body, by dotted path such as "parameters.block_size". Every '
        "combination is a point, which is one job.",
    )
    points: Annotated[list[dict[_Path, JsonValue]], Field(max_length=MOST_POINTS)] = Field(
        default_factory=list, description="More points, each with its own values by dotted path."
    )
    search: Search | None = None
    max_concurrent: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="Largest number of jobs that are queued or running at a time."
    )
    skip_invalid: bool = Field(
        False,
        description="Leave out points that would be refused as jobs. Otherwise the sweep is refused, and names them.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.search is not None and (self.grid is not None or self.points):
            raise ValueError("search chooses its own points: leave out grid and points")
        if self.search is None and self.grid is None and not self.points:
            raise ValueError("give what varies: grid, points or search")
        return self


class Sweep(wire.Sweep[Search]):
    """A sweep: its state, and the request. `waiting_for` says why no further job was started, such as a quota."""


class SweepResults(wire.SweepResults[Sweep, TradeOff]):
    """A sweep's points side by side, the trade-off of quality and cost, and the best by each objective."""
