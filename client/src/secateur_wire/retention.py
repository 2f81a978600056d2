"""Retention: the artifacts that a team keeps, and those that are removed."""

from datetime import datetime
from typing import Annotated, Generic, Literal

from typing_extensions import TypeVar

from secateur_wire.base import OneOf, WireModel

KeptBecause = Literal["age", "tagged", "in_use", "read"]


class KeepTagged(WireModel):
    """Rule that keeps the artifacts of jobs whose metadata has all of these values."""

    metadata: dict[str, str]


class RetentionPolicy(WireModel):
    """Policy that removes artifacts of jobs that ended more than `keep_days` ago, unless they are tagged."""

    keep_days: int
    keep_tagged: KeepTagged | None = None


Policy = TypeVar("Policy", default=RetentionPolicy)


class Retention(WireModel, Generic[Policy]):
    """The team's policy; None keeps everything.

    `suspended` is the reason why a stored policy removes nothing, such as a rule that has left; None where it is
    applied.
    """

    object: Literal["retention"] = "retention"
    policy: Policy | None
    suspended: str | None = None
    updated_at: datetime | None


class ArtifactVerdict(WireModel):
    """One artifact, and whether it is removed.

    `kept_because` is empty where it is removed. `age`: it is younger than keep_days. `tagged`: `keep_tagged` keeps it.
    `in_use`: no rule keeps it, but `used_by` uses it. `read`: no rule keeps it, but
    somebody downloaded from it within the last hour.
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
    """Effect of a policy now; `artifacts` lists at most 1000, those to remove first; the counts are of all.

    `has_more` says that some artifacts are not listed; `goes` and `stays` together are the total number.
    """

    object: Literal["retention_preview"] = "retention_preview"
    policy: Policy
    artifacts: list[ArtifactVerdict]
    has_more: bool = False
    goes: int
    stays: int
    bytes_freed: int
