"""Retention policy of a team, in requests and answers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from secateur_wire import retention as wire
from secateur_wire.retention import Figure, Group

_Label = Annotated[str, Field(min_length=1, max_length=300)]


class KeepBest(BaseModel):
    """The `count` artifacts that are smallest by a figure, of each model, each method, or of the whole team.

    `perplexity_ratio` is the mean over a job's evaluation sets, `bytes` the artifact's size, `parameters` those that
    are not zero, `latency` the pruned model's. A job that lacks the figure, or failed, is none of the best.
    """

    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, le=1000)]
    by: Figure
    group: Group = "model"


class KeepTagged(BaseModel):
    """The artifacts of jobs whose metadata has all of these values."""

    model_config = ConfigDict(extra="forbid")

    metadata: Annotated[dict[_Label, _Label], Field(min_length=1, max_length=20)]


class RetentionPolicy(BaseModel):
    """Artifacts of jobs that ended more than `keep_days` ago are removed, but for those that one of the other rules
    keeps, and those in use. Jobs, reports and events stay; so do uploads, models and datasets.
    """

    model_config = ConfigDict(extra="forbid")

    keep_days: Annotated[int, Field(ge=1, le=36500)]
    keep_last: (
        Annotated[int, Field(ge=1, le=100_000, description="Keep this many artifacts, of the jobs that ended last.")]
        | None
    ) = None
    keep_best: KeepBest | None = None
    keep_tagged: KeepTagged | None = None


class Retention(wire.Retention[RetentionPolicy]):
    """A team's policy; null: everything is kept."""


class RetentionPreview(wire.RetentionPreview[RetentionPolicy]):
    """Effect that a policy would have now. `artifacts` are those that go first, then those that stay, each the oldest
    first, at most 1000, and `has_more` says that there are others; the counts are of all.
    """
