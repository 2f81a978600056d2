"""Answers of the server about publications of artifacts, and about which artifacts a team keeps."""

from datetime import datetime
from typing import Final, Literal

from secateur.types import Answer

PublicationStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Figure = Literal["perplexity_ratio", "bytes", "parameters", "latency"]
Group = Literal["model", "method", "team"]

_OVER: Final = frozenset({"succeeded", "failed", "cancelled"})


class PublicationProgress(Answer):
    """Files and bytes that have arrived, of all there are."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int


class PublicationResult(Answer):
    """Place of the published artifact; `commit` is the hub repository's, None for a bucket."""

    url: str
    commit: str | None


class PublicationError(Answer):
    """Why a publication failed, or its last attempt did."""

    code: str
    message: str
    param: str | None
    retryable: bool


class Publication(Answer):
    """An artifact on its way to the hub or a bucket, or arrived there."""

    id: str
    job_id: str
    to: str
    revision: str | None
    private: bool | None
    message: str | None
    region: str | None
    endpoint: str | None
    status: PublicationStatus
    attempt: int
    progress: PublicationProgress
    result: PublicationResult | None
    error: PublicationError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime

    @property
    def finished(self) -> bool:
        return self.status in _OVER


class KeepBest(Answer):
    """The `count` artifacts that are smallest by a figure, of each model, each method, or of the whole team."""

    count: int
    by: Figure
    group: Group = "model"


class KeepTagged(Answer):
    """The artifacts of jobs whose metadata has all of these values."""

    metadata: dict[str, str]


class RetentionPolicy(Answer):
    """Artifacts of jobs that ended more than `keep_days` ago go, but for those that another rule keeps."""

    keep_days: int
    keep_last: int | None = None
    keep_best: KeepBest | None = None
    keep_tagged: KeepTagged | None = None


class Retention(Answer):
    """The team's policy; None: everything is kept."""

    policy: RetentionPolicy | None
    updated_at: datetime | None


class ArtifactVerdict(Answer):
    """One artifact, whether it goes, and if not why: age, last, best, tagged, in_use (`used_by` what) or read."""

    job_id: str
    model: str
    method: str
    finished_at: datetime
    files: int
    bytes: int
    goes: bool
    kept_because: list[str]
    used_by: str | None


class RetentionPreview(Answer):
    """Effect of a policy now; `artifacts` lists at most 1000, those to be removed first; the counts are of all."""

    policy: RetentionPolicy
    artifacts: list[ArtifactVerdict]
    goes: int
    stays: int
    bytes_freed: int
