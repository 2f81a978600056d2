"""Retention: which artifacts a team keeps, and which go."""

from datetime import datetime
from typing import Annotated, Generic, Literal

from typing_extensions import TypeVar

from secateur_wire.base import OneOf, WireModel

Figure = Literal["perplexity_ratio", "bytes", "parameters", "latency"]
Group = Literal["model", "method", "team"]
KeptBecause = Literal["age", "last", "best", "tagged", "in_use", "read"]


class KeepBest(WireModel):
    """The `count` artifacts that are smallest by a figure, of each model, each method, or of the whole team."""

    count: int
    by: Figure
    group: Group = "model"


class KeepTagged(WireModel):
    """The artifacts of jobs whose metadata has all of these values."""

    metadata: dict[str, str]


class RetentionPolicy(WireModel):
    """Artifacts of jobs that ended more than `keep_days` ago go, but for those that another rule keeps."""

    keep_days: int
    keep_last: int | None = None
    keep_best: KeepBest | None = None
    keep_tagged: KeepTagged | None = None


Policy = TypeVar("Policy", default=RetentionPolicy)


class Retention(WireModel, Generic[Policy]):
    """The team's policy; None: everything is kept."""

    object: Literal["retention"] = "retention"
    policy: Policy | None
    updated_at: datetime | None


class ArtifactVerdict(WireModel):
    """One artifact, and whether it goes. `kept_because` is empty where it does: `age` (it is younger than keep_days),
    `last`, `best` or `tagged` by the rules of these names; and of those that no rule keeps `in_use` (`used_by` says by
    what) or `read` (somebody downloaded from it within the hour).
    """

    job_id: str
    model: str
    method: str
    finished_at: datetime
    files: int
    bytes: int
    goes: bool
    kept_because: list[Annotated[str, OneOf(KeptBecause)]]
    used_by: str | None


class RetentionPreview(WireModel, Generic[Policy]):
    """Effect of a policy now; `artifacts` lists at most 1000, those to be removed first; the counts are of all.

    `has_more` says that there are artifacts which are not listed: `goes` and `stays` together are how many there are.
    """

    object: Literal["retention_preview"] = "retention_preview"
    policy: Policy
    artifacts: list[ArtifactVerdict]
    has_more: bool = False
    goes: int
    stays: int
    bytes_freed: int
