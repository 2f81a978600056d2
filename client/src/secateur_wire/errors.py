"""The one tree of errors: the server raises them, and the client makes the same of the server's answers.

SecateurError                  every error has a stable `code`
└── ApiError                   and, of these, an HTTP status and a title
    ├── InvalidRequest         422
    │   ├── UnknownMethod  UnknownModel  UnknownDataset  UnknownQueue  UnsafeAddress  DoesNotFit  DiscoveryFailed
    │   ├── InvalidSparsity  InvalidTarget  InvalidPattern  InvalidParameters  IndivisibleWidth
    │   ├── TooLittleText  TooFewImages  UnusableDataset  UploadRefused  DestinationRefused
    │   └── UnusableModel
    │       ├── UnsupportedArchitecture  UnsafeConfig  PickleCheckpoint  CorruptSafetensors  MissingTensors
    │       └── NotFiniteWeights  PathEscapes  GatedModel  ModelTooLarge
    ├── Unauthenticated 401  Forbidden 403  NotFound 404  SlowRequest 408
    ├── PayloadTooLarge 413  RangeNotSatisfiable 416
    ├── Conflict               409
    │   └── IdempotencyConflict  NotDiscovered  NoArtifact  OffsetMismatch
    ├── TooManyRequests        429, with `retry_after`
    │   └── RateLimited  QuotaExceeded
    └── ServerError            5xx
        ├── RunFailed          500, how an attempt at a job ended
        │   ├── GateMissed  OutOfMemory  TimeLimitExceeded  ReloadCheckFailed  RunnerLost  InternalError
        │   ├── ExportFailed  ExportMismatch  RecoveryDiverged  ZerosRefilled  LatencyTooNoisy
        │   ├── SweepFailed  ConstraintsNotMet  TargetUnreachable  PublicationExpired
        │   └── DiskFull       507
        └── Unavailable        503, with `retry_after`
            ├── HubUnavailable  DestinationUnavailable  StoreUnavailable
            └── StoreOfAnother (below StoreUnavailable)

A class is named after its `code`. Errors of the client alone, as of a connection that breaks, are in `secateur.errors`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Child processes that read foreign files load no pydantic.
    from pydantic import JsonValue

    from secateur_wire.problems import StoredProblem


class SecateurError(Exception):
    """Base class of all errors; the text names the fault and, where known, a correction.

    `code` is stable and machine readable. `param` is the field at fault, if any. `retryable`: another attempt of the
    same job could end differently.
    """

    code: str
    retryable: bool = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def problem(self) -> "StoredProblem":
        """Return the error as stored on a job and sent by the runner: `code`, `message`, `param`, `retryable`."""
        return {"code": self.code, "message": self.message, "param": self.param, "retryable": self.retryable}


class ApiError(SecateurError):
    """Error with which the server answers a call, or with which an attempt at a job ends.

    `status` is HTTP's, `retry_after` the seconds after which the server suggests a retry, and `members` are further
    members of the problem document. A client also has `request_id`, the request's id in the server's logs. `repeated`
    is True if the call was sent before and the connection broke before its answer. `hint` is additional advice.
    `needs_change`: a job that ended so would end so again, because its request or its model is at fault.
    """

    code = "internal_error"
    status: int = 500
    title: str = "Internal error"
    needs_change: bool = False
    retry_after: float | None = None
    request_id: str | None = None
    repeated: bool = False
    hint: str | None = None

    def __init_subclass__(cls, *, needs_change: bool | None = None) -> None:
        """Take whether a job that ended so needs a change; unset: as its base class."""
        super().__init_subclass__()
        if needs_change is not None:
            cls.needs_change = needs_change

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        members: "Mapping[str, JsonValue] | None" = None,
    ) -> None:
        super().__init__(message, param=param)
        if retry_after is not None:
            self.retry_after = retry_after
        self.members = dict(members or {})

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"

    @property
    def detail(self) -> str:
        """Return the message under its name in a problem document."""
        return self.message


class InvalidRequest(ApiError):
    """The request is invalid; `param` names the field."""

    code, status, title = "invalid_request", 422, "Invalid request"
    needs_change = True

    def __init_subclass__(cls, *, needs_change: bool) -> None:
        """Require each kind to decide whether a job that ended so needs a change."""
        super().__init_subclass__(needs_change=needs_change)


class UnknownMethod(InvalidRequest, needs_change=False):
    """No method of this name."""

    code, title = "unknown_method", "Unknown method"


class UnknownModel(InvalidRequest, needs_change=False):
    """No model of this name."""

    code, title = "unknown_model", "Unknown model"


class UnknownDataset(InvalidRequest, needs_change=False):
    """No text of this name."""

    code, title = "unknown_dataset", "Unknown dataset"


class InvalidSparsity(InvalidRequest, needs_change=True):
    """A sparsity that the method or pattern cannot reach."""

    code, title = "invalid_sparsity", "Invalid sparsity"


class InvalidTarget(InvalidRequest, needs_change=True):
    """A target that the method cannot reach, or that does not apply to it; the message names the nearest one."""

    code, title = "invalid_target", "Invalid target"


class InvalidPattern(InvalidRequest, needs_change=True):
    """A pattern that the method does not know."""

    code, title = "invalid_pattern", "Invalid pattern"


class InvalidParameters(InvalidRequest, needs_change=True):
    """Parameters that the method does not take."""

    code, title = "invalid_parameters", "Invalid parameters"


class IndivisibleWidth(InvalidRequest, needs_change=True):
    """A layer's input width is not divisible by the m of n:m."""

    code, title = "indivisible_width", "Input width does not divide by m"


class DiscoveryFailed(InvalidRequest, needs_change=False):
    """The discovery of the model's architecture ended without an answer."""

    code, title = "discovery_failed", "Discovery of the architecture failed"


class TooLittleText(InvalidRequest, needs_change=True):
    """The text has fewer tokens than the request needs."""

    code, title = "too_little_text", "Too little text"


class TooFewImages(InvalidRequest, needs_change=True):
    """The set has fewer images than the request needs."""

    code, title = "too_few_images", "Too few images"


class UnknownQueue(InvalidRequest, needs_change=True):
    """No queue of this name."""

    code, title = "unknown_queue", "Unknown queue"


class UnsafeAddress(InvalidRequest, needs_change=False):
    """A URL that the server must not call: not https, or not at a public address."""

    code, title = "unsafe_address", "Unsafe address"


class DoesNotFit(InvalidRequest, needs_change=False):
    """No worker of the queue has the memory or disk that the job needs."""

    code, title = "does_not_fit", "No worker of the queue can hold the job"


class UnusableModel(InvalidRequest, needs_change=True):
    """A model that cannot be opened safely, or is incomplete."""

    code, title = "unusable_model", "Unusable model"


class UnsupportedArchitecture(UnusableModel, needs_change=True):
    """An architecture that this service does not know, or that the method does not prune."""

    code, title = "unsupported_architecture", "Unsupported architecture"


class UnsafeConfig(UnusableModel, needs_change=True):
    """The config requires the execution of code."""

    code, title = "unsafe_config", "Unsafe model config"


class PickleCheckpoint(UnusableModel, needs_change=True):
    """A pickle checkpoint; only safetensors are opened."""

    code, title = "pickle_checkpoint", "Pickle checkpoints are not opened"


class CorruptSafetensors(UnusableModel, needs_change=True):
    """A file whose content does not match its header."""

    code, title = "corrupt_safetensors", "Corrupt safetensors file"


class MissingTensors(UnusableModel, needs_change=True):
    """The files lack tensors of the architecture."""

    code, title = "missing_tensors", "Missing tensors"


class NotFiniteWeights(UnusableModel, needs_change=True):
    """Weights that are infinite or NaN."""

    code, title = "not_finite_weights", "Weights that are not finite"


class PathEscapes(UnusableModel, needs_change=True):
    """A name that leads out of the model's folder."""

    code, title = "path_escapes", "Path outside its root"


class GatedModel(UnusableModel, needs_change=False):
    """The hub requires that its terms are accepted first."""

    code, title = "gated_model", "Gated repository"


class ModelTooLarge(UnusableModel, needs_change=False):
    """The model has more bytes than the service fetches."""

    code, title = "model_too_large", "Model too large"


class UnusableDataset(InvalidRequest, needs_change=True):
    """A text that cannot be read."""

    code, title = "unusable_dataset", "Unusable dataset"


class UploadRefused(InvalidRequest, needs_change=False):
    """A part or a file of an upload differs from the announcement."""

    code, title = "upload_refused", "Upload refused"


class DestinationRefused(InvalidRequest, needs_change=False):
    """The hub or the bucket refuses the artifact: its token, name or rights are wrong."""

    code, title = "destination_refused", "The destination refuses the artifact"


class Unauthenticated(ApiError):
    """The API key is missing, unknown, revoked or expired."""

    code, status, title = "unauthenticated", 401, "Not authenticated"


class Forbidden(ApiError):
    """The API key's role does not allow this."""

    code, status, title = "forbidden", 403, "Not allowed"


class NotFound(ApiError, needs_change=True):
    """The object does not exist, or belongs to another team."""

    code, status, title = "not_found", 404, "Not found"


class Conflict(ApiError, needs_change=True):
    """The current state does not allow this."""

    code, status, title = "conflict", 409, "Conflict"


class IdempotencyConflict(Conflict, needs_change=False):
    """The idempotency key was used before with another body."""

    code, title = "idempotency_conflict", "Idempotency key reused with another body"


class NoArtifact(Conflict, needs_change=False):
    """The job has no artifact, or none that may be published."""

    code, title = "no_artifact", "No artifact"


class OffsetMismatch(Conflict, needs_change=False):
    """A part of an upload that does not begin where the last one ended."""

    code, title = "offset_mismatch", "Part does not go on where the last one ended"

    @property
    def received(self) -> int | None:
        """Return the number of the file's bytes on the server: the offset to continue from."""
        received = self.members.get("received")
        return received if isinstance(received, int) else None


class NotDiscovered(Conflict, needs_change=False):
    """The model's architecture has to be discovered first: `inspect` waits for that.

    Only the server sets `model`, the known part of its description, and `version`, the library version for the
    discovery; None where no worker has reported one.
    """

    code, title = "not_discovered", "The architecture is not discovered yet"
    model: object = None
    version: str | None = None


class PayloadTooLarge(ApiError):
    """The body is longer than the server accepts."""

    code, status, title = "payload_too_large", 413, "Body too large"


class SlowRequest(ApiError):
    """The body took longer to arrive than the server waits."""

    code, status, title = "slow_request", 408, "Request took too long to arrive"


class RangeNotSatisfiable(ApiError):
    """The file has no such bytes."""

    code, status, title = "range_not_satisfiable", 416, "Range not satisfiable"


class TooManyRequests(ApiError):
    """The key or team has made too many requests; retry after `retry_after` seconds."""

    code, status, title = "too_many", 429, "Too many"


class RateLimited(TooManyRequests):
    """Too many requests of this API key."""

    code, title = "rate_limited", "Too many requests"


class QuotaExceeded(TooManyRequests):
    """The team's quota of queued jobs, device hours, stored bytes or discoveries is used up."""

    code, title = "quota_exceeded", "Quota exceeded"


class ServerError(ApiError):
    """The server, or a proxy in front of it, failed."""


class RunFailed(ServerError):
    """An attempt at a job that ended without a result."""

    code, title = "run_failed", "Run failed"

    def __init_subclass__(cls, *, needs_change: bool) -> None:
        """Require each kind to decide whether a job that ended so needs a change."""
        super().__init_subclass__(needs_change=needs_change)


class GateMissed(RunFailed, needs_change=True):
    """The model is pruned and stored, but does not meet a gate of the job."""

    code, title = "gate_missed", "Gate missed"


class OutOfMemory(RunFailed, needs_change=False):
    """The runner needed more memory than the worker has."""

    code, title = "out_of_memory", "Out of memory"


class TimeLimitExceeded(RunFailed, needs_change=False):
    """The attempt took longer than its time limit."""

    code, title = "time_limit_exceeded", "Time limit exceeded"


class ReloadCheckFailed(RunFailed, needs_change=False):
    """The artifact gives other results after loading than before."""

    code, title = "reload_check_failed", "Reload check failed"


class ExportFailed(RunFailed, needs_change=False):
    """An additional form could not be written, or its runtime does not run it."""

    code, title = "export_failed", "Export failed"


class ExportMismatch(RunFailed, needs_change=False):
    """The exported form's predictions differ from the artifact's."""

    code, title = "export_mismatch", "Export does not compute what the artifact does"


class RecoveryDiverged(RunFailed, needs_change=True):
    """The training loss is no longer a number."""

    code, title = "recovery_diverged", "Recovery diverged"


class ZerosRefilled(RunFailed, needs_change=False):
    """A pruned weight came back in the recovery."""

    code, title = "zeros_refilled", "Recovery refilled pruned weights"


class SweepFailed(RunFailed, needs_change=False):
    """No job of a sweep succeeded."""

    code, title = "sweep_failed", "No job of the sweep succeeded"


class ConstraintsNotMet(RunFailed, needs_change=False):
    """No model in a search meets its limits."""

    code, title = "constraints_not_met", "No model keeps the limits"


class TargetUnreachable(RunFailed, needs_change=True):
    """No shape of the model is as fast as the target."""

    code, title = "target_unreachable", "Target out of reach"


class LatencyTooNoisy(RunFailed, needs_change=False):
    """The timings differ by more than the requested gain."""

    code, title = "latency_too_noisy", "Timings too uneven for the target"


class PublicationExpired(RunFailed, needs_change=False):
    """A publication did not end within its time limit."""

    code, title = "publication_expired", "Publication took too long"


class RunnerLost(RunFailed, needs_change=False):
    """The runner ended without a result."""

    code, title, retryable = "runner_lost", "The runner ended without a result", True


class DiskFull(RunFailed, needs_change=False):
    """No space is left on the server's disk."""

    code, status, title, retryable = "disk_full", 507, "No space left on the disk", True


class InternalError(RunFailed, needs_change=False):
    """An unexpected error, logged by the server under `request_id`."""

    code, title = "internal_error", "Internal error"


class Unavailable(ServerError):
    """A part that the server needs is temporarily unavailable.

    A client that waits no longer than `retry_after` gets the error at once.
    """

    code, status, title, retryable = "unavailable", 503, "Temporarily unavailable", True
    retry_after = 5


class HubUnavailable(Unavailable):
    """The hub does not answer the server."""

    code, title = "hub_unavailable", "The hub cannot be reached"


class StoreUnavailable(Unavailable):
    """The store of artifacts does not answer the server."""

    code, title = "store_unavailable", "The store cannot be reached"


class StoreOfAnother(StoreUnavailable):
    """The server's store belongs to another installation; the operator has to configure a store of its own."""

    code, title = "store_of_another", "The store belongs to another installation"


class DestinationUnavailable(Unavailable):
    """The hub or the bucket of a publication does not answer the server."""

    code, title = "destination_unavailable", "The destination cannot be reached"


def kinds_of(root: type[ApiError] = ApiError) -> "Iterator[type[ApiError]]":
    """Yield all classes below an error's."""
    for child in root.__subclasses__():
        yield child
        yield from kinds_of(child)
