"""Errors the client raises.

SecateurError
├── ConfigurationError      no API key, or a URL that is none
├── Unreachable             nothing answers at the URL, or not in time
├── UnexpectedAnswer        what answers does not speak this API
├── DownloadError           also where the job has no artifact
│   ├── UnsafeName          a file name that would leave the download folder
│   ├── ChecksumMismatch    the bytes are not those the server announced
│   └── DownloadInterrupted the connection kept breaking; the same call later goes on where it stopped
├── JobError                a job did not succeed, `job`: raised by `Job.raise_for_status()` alone
│   ├── JobFailed           `code` says why
│   │   └── GateMissed      pruned and stored, but worse than a gate allows
│   └── JobCancelled
├── UploadError             what is here cannot be uploaded
│   └── UploadInterrupted   the connection kept breaking; the same call later goes on where it stopped
└── ApiError                the server refused, with a problem document (RFC 9457)
    ├── Unauthenticated     401
    ├── Forbidden           403
    ├── NotFound            404
    ├── Conflict            409
    │   ├── IdempotencyConflict  the key was used with another body
    │   ├── NotDiscovered        what the model is has to be discovered first: inspect it
    │   ├── NoArtifact           there is none, or none that may be published
    │   └── OffsetMismatch       a part does not go on where the server stands: `received`
    ├── SlowRequest         408
    ├── PayloadTooLarge     413
    ├── RangeNotSatisfiable 416
    ├── InvalidRequest      400, 422
    │   ├── UnknownModel  UnknownDataset  UnknownMethod  UnknownQueue
    │   ├── InvalidSparsity  InvalidTarget  InvalidPattern  InvalidParameters  IndivisibleWidth
    │   ├── TooLittleText  TooFewImages
    │   ├── DoesNotFit           no worker of the queue can hold the job
    │   ├── DiscoveryFailed      whoever looked at the architecture ended without an answer
    │   ├── UnsafeAddress        a URL that the server must not call
    │   ├── UnusableModel        cannot be opened safely, or not at all
    │   │   ├── UnsupportedArchitecture  UnsafeConfig  PickleCheckpoint  CorruptSafetensors
    │   │   ├── MissingTensors  NotFiniteWeights  PathEscapes  ModelTooLarge
    │   │   └── GatedModel       the hub asks for terms to be accepted first
    │   ├── UnusableDataset
    │   ├── DestinationRefused   the hub or bucket does not take an artifact
    │   └── UploadRefused        a part or file is not what was announced
    ├── TooManyRequests     429, with `retry_after`
    │   ├── RateLimited          of one API key
    │   └── QuotaExceeded        of the team
    └── ServerError         5xx
        ├── InternalError        500
        ├── DiskFull             507
        └── Unavailable          503, with `retry_after`
            ├── HubUnavailable  DestinationUnavailable
            └── StoreUnavailable
                └── StoreOfAnother

A refusal's class is named after its `code`.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from secateur.job_document import JobDocument
from secateur.options import OPTIONS


class SecateurError(Exception):
    """Base of all errors of the client; its text says what was wrong and, where known, what would be right."""


class ConfigurationError(SecateurError):
    """The client was not told enough to make a request."""


class Unreachable(SecateurError):
    """No answer: connection refused, name not found, connection lost or time out."""


class UnexpectedAnswer(SecateurError):
    """An answer this API does not give."""


class DownloadError(SecateurError):
    """An artifact could not be brought here whole."""


class UnsafeName(DownloadError):
    """The server lists a file whose name would be written outside the download folder."""


class ChecksumMismatch(DownloadError):
    """The SHA-256 or size of a downloaded file is not what the server lists."""


class DownloadInterrupted(DownloadError):
    """The connection kept breaking. What arrived is kept; the same call continues from there."""


class JobError(SecateurError):
    """A job that did not succeed. `code` is stable: the job's own error, or `cancelled`."""

    def __init__(self, job: JobDocument) -> None:
        self.job = job
        self.code = job.error.code if job.error else job.status
        super().__init__(f"{job.id} {job.status}: {job.error.message}" if job.error else f"{job.id} was {job.status}")


class JobFailed(JobError):
    """Failed job; `job.error` says why."""


class GateMissed(JobFailed):
    """Job pruned and stored that missed a gate: every figure beside its limit is in the report's `gates.rows`."""


class JobCancelled(JobError):
    """Job that somebody cancelled."""


class UploadError(SecateurError):
    """Files that cannot be uploaded, or that changed while they were."""


class UploadInterrupted(UploadError):
    """The connection kept breaking. The server keeps what arrived; the same call continues from there."""


class ApiError(SecateurError):
    """The server's refusal.

    `status` is HTTP's, `code` stable, `param` the field at fault if any, `retry_after` the seconds after which the
    server said to come back, `request_id` what its logs call the request, `members` whatever else the document holds.
    `repeated`: the call was made before, and the connection broke before its answer came.
    """

    def __init__(
        self,
        *,
        status: int,
        code: str,
        title: str,
        detail: str,
        param: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        members: Mapping[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.param = param
        self.retry_after = retry_after
        self.request_id = request_id
        self.members = dict(members or {})
        self.repeated = False


class Unauthenticated(ApiError):
    """The API key is missing, unknown, revoked or expired."""


class Forbidden(ApiError):
    """The API key's role does not allow this."""


class NotFound(ApiError):
    """There is no such thing, or it belongs to another team."""


class Conflict(ApiError):
    """The state of things does not allow this now."""


class IdempotencyConflict(Conflict):
    """The idempotency key was used before, with another body."""


class NotDiscovered(Conflict):
    """The model's architecture has to be discovered first: `inspect` waits for that."""


class NoArtifact(Conflict):
    """The job has no artifact, or none that may be published."""


class OffsetMismatch(Conflict):
    """A part of an upload that does not go on where the last one ended."""

    @property
    def received(self) -> int | None:
        """Return how many bytes of the file the server has."""
        received = self.members.get("received")
        return received if isinstance(received, int) else None


class SlowRequest(ApiError):
    """The body took longer to arrive than the server waits."""


class RangeNotSatisfiable(ApiError):
    """The file has no such bytes."""


class PayloadTooLarge(ApiError):
    """The body has more bytes than the server takes."""


class InvalidRequest(ApiError):
    """Request that makes no sense; `param` names the field.

    Where that is an object of a job body, the text names the option of `secateur submit` that writes it.
    """

    def __str__(self) -> str:
        option = OPTIONS.get(self.param or "")
        return self.detail if option is None else f"{self.detail} (`secateur submit`: {option})"


class DiscoveryFailed(InvalidRequest):
    """The server's look at the model's architecture ended without an answer."""


class UnknownModel(InvalidRequest):
    """No model of this name."""


class UnknownDataset(InvalidRequest):
    """No text of this name."""


class UnknownMethod(InvalidRequest):
    """No method of this name."""


class UnknownQueue(InvalidRequest):
    """No queue of this name."""


class InvalidSparsity(InvalidRequest):
    """A sparsity that the method or pattern cannot reach."""


class InvalidTarget(InvalidRequest):
    """A target that the method cannot reach, or that means nothing with it; the message names the nearest."""


class InvalidPattern(InvalidRequest):
    """A pattern that the method does not know."""


class InvalidParameters(InvalidRequest):
    """Parameters that the method does not take."""


class IndivisibleWidth(InvalidRequest):
    """A layer's input width does not divide by the m of n:m."""


class TooLittleText(InvalidRequest):
    """The text has fewer tokens than was asked for."""


class TooFewImages(InvalidRequest):
    """The set has fewer images than was asked for."""


class DoesNotFit(InvalidRequest):
    """No worker of the queue has the memory or disk the job needs."""


class UnsafeAddress(InvalidRequest):
    """A URL that the server must not call: not https, or not at a public address."""


class UnusableModel(InvalidRequest):
    """A model that cannot be opened safely, or is not whole."""


class UnsupportedArchitecture(UnusableModel):
    """No family this service knows, or one that the method does not prune."""


class UnsafeConfig(UnusableModel):
    """The config asks for code to be run."""


class PickleCheckpoint(UnusableModel):
    """Only safetensors are opened."""


class CorruptSafetensors(UnusableModel):
    """A file that is not what its header says."""


class MissingTensors(UnusableModel):
    """Tensors that the architecture has and the files have not."""


class NotFiniteWeights(UnusableModel):
    """Weights that are infinite or no number."""


class PathEscapes(UnusableModel):
    """A name that leads out of the model's folder."""


class ModelTooLarge(UnusableModel):
    """More bytes than the service fetches."""


class GatedModel(UnusableModel):
    """The hub has it, and asks for its terms to be accepted first."""


class UnusableDataset(InvalidRequest):
    """A text that cannot be read."""


class DestinationRefused(InvalidRequest):
    """The hub or the bucket does not take the artifact: its token, name or rights are wrong."""


class UploadRefused(InvalidRequest):
    """A part or a file of an upload is not what was announced."""


class TooManyRequests(ApiError):
    """More than the server takes of this key or team now; `retry_after` says when to come back."""


class RateLimited(TooManyRequests):
    """Too many requests of this API key."""


class QuotaExceeded(TooManyRequests):
    """The team's quota of queued jobs, device hours, stored bytes or discoveries is used up."""


class ServerError(ApiError):
    """The server, or a proxy before it, failed."""


class Unavailable(ServerError):
    """Something the server needs is away for the moment."""


class HubUnavailable(Unavailable):
    """The hub does not answer the server."""


class DestinationUnavailable(Unavailable):
    """The hub or the bucket that an artifact goes to does not answer the server."""


class StoreUnavailable(Unavailable):
    """The store of artifacts does not answer the server."""


class StoreOfAnother(StoreUnavailable):
    """The server's store belongs to another installation: its operator has to give it one of its own."""


class InternalError(ServerError):
    """An unexpected error, which the server logged under `request_id`."""


class DiskFull(ServerError):
    """No space is left on the server's disk."""
