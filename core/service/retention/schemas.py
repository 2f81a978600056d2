"""Retention policy of a team, in requests and answers."""

from typing import Annotated

from pydantic import Field

from secateur_wire import retention as wire
from secateur_wire.requests import RequestObject
from secateur_wire.retention import Figure, Group

_Label = Annotated[str, Field(min_length=1, max_length=300)]


class KeepBest(RequestObject):
    """Rule that keeps the `count` artifacts with the smallest figure, of each model, each method, or the whole team.

    `perplexity_ratio` is the mean over a job's evaluation sets, `bytes` the artifact's size, `parameters` the number of
    nonzero parameters, `latency` the pruned model's latency. A job without the figure, or a failed job, never counts.
    """

    count: Annotated[int, Field(ge=1, le=1000)]
    by: Figure
    group: Group = "model"


class KeepTagged(RequestObject):
    """Rule that keeps the artifacts of jobs whose metadata has all of these values."""

    metadata: Annotated[dict[_Label, _Label], Field(min_length=1, max_length=20)]


class RetentionPolicy(RequestObject):
    """Policy that removes artifacts of jobs that ended more than `keep_days` ago.

    Artifacts stay if one of the other rules keeps them, or if they are in use. Jobs, reports, events, uploads, models
    and datasets always stay.
    """

    keep_days: Annotated[int, Field(ge=1, le=36500)]
    keep_last: (
        Annotated[int, Field(ge=1, le=100_000, description="Keep this many artifacts, of the jobs that ended last.")]
        | None
    ) = None
    keep_best: KeepBest | None = None
    keep_tagged: KeepTagged | None = None


class Retention(wire.Retention[RetentionPolicy]):
    """A team's policy; null keeps everything."""


class RetentionPreview(wire.RetentionPreview[RetentionPolicy]):
    """Effect that a policy would have now.

    `artifacts` lists the artifacts to remove, then those that stay, each the oldest first, 1000 in total. `has_more`
    says that there are others. The counts are of all artifacts.
    """
