"""Publications of artifacts: on the hub, or in a bucket."""

from datetime import datetime
from typing import Literal

from secateur_wire.base import WireModel
from secateur_wire.states import FINISHED, PublicationStatus


class PublicationProgress(WireModel):
    """Files and bytes that have arrived, and their totals."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int


class PublicationResult(WireModel):
    """Place of the published artifact; `commit` is the hub repository's, null for a bucket."""

    url: str
    commit: str | None


class PublicationError(WireModel):
    """Error of a publication's last attempt, in the form of a job's error."""

    code: str
    message: str
    param: str | None
    retryable: bool


class Publication(WireModel):
    """A publication of an artifact.

    `attempt` counts the attempts. With the states `queued` and `running`, `error` is that of the attempt before. The
    publication ends at `expires_at` at the latest.
    """

    id: str
    object: Literal["publication"] = "publication"
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
        return self.status in FINISHED
