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

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # children that read foreign files load no pydantic
    from pydantic import JsonValue

    from secateur_wire.problems import StoredProblem


class SecateurError(Exception):
    """Base of all errors; the text says what was wrong and, where known, what would be right.

    `code` is stable and machine readable, `param` the field at fault if any, `retryable` whether another attempt of the
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
    """Error that the server answers a call with, or that an attempt at a job ends with.

    `status` is HTTP's, `retry_after` the seconds after which the server says to come back, `members` further members of
    the problem document. A client also has `request_id`, by which the server's logs call the request; `repeated`, True
    where the call was made before and the connection broke before its answer came; and a `hint` where it knows more
    than the message says.
    """

    code = "internal_error"
    status: int = 500
    title: str = "Internal error"
    retry_after: float | None = None
    request_id: str | None = None
    repeated: bool = False
    hint: str | None = None

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
        """Return the message, under its name in a problem document."""
        return self.message


class InvalidRequest(ApiError):
    """Request that makes no sense; `param` names the field."""

    code, status, title = "invalid_request", 422, "Invalid request"


class UnknownMethod(InvalidRequest):
    """No method of this name."""

    code, title = "unknown_method", "Unknown method"


class UnknownModel(InvalidRequest):
    """No model of this name."""

    code, title = "unknown_model", "Unknown model"


class UnknownDataset(InvalidRequest):
    """No text of this name."""

    code, title = "unknown_dataset", "Unknown dataset"


class InvalidSparsity(InvalidRequest):
    """A sparsity that the method or pattern cannot reach."""

    code, title = "invalid_sparsity", "Invalid sparsity"


class InvalidTarget(InvalidRequest):
    """A target that the method cannot reach, or that means nothing with it; the message names the nearest."""

    code, title = "invalid_target", "Invalid target"


class InvalidPattern(InvalidRequest):
    """A pattern that the method does not know."""

    code, title = "invalid_pattern", "Invalid pattern"


class InvalidParameters(InvalidRequest):
    """Parameters that the method does not take."""

    code, title = "invalid_parameters", "Invalid parameters"


class IndivisibleWidth(InvalidRequest):
    """A layer's input width does not divide by the m of n:m."""

    code, title = "indivisible_width", "Input width does not divide by m"


class DiscoveryFailed(InvalidRequest):
    """The server's look at the model's architecture ended without an answer."""

    code, title = "discovery_failed", "Discovery of the architecture failed"


class TooLittleText(InvalidRequest):
    """The text has fewer tokens than was asked for."""

    code, title = "too_little_text", "Too little text"


class TooFewImages(InvalidRequest):
    """The set has fewer images than was asked for."""

    code, title = "too_few_images", "Too few images"


class UnknownQueue(InvalidRequest):
    """No queue of this name."""

    code, title = "unknown_queue", "Unknown queue"


class UnsafeAddress(InvalidRequest):
    """A URL that the server must not call: not https, or not at a public address."""

    code, title = "unsafe_address", "Unsafe address"


class DoesNotFit(InvalidRequest):
    """No worker of the queue has the memory or disk the job needs."""

    code, title = "does_not_fit", "No worker of the queue can hold the job"


class UnusableModel(InvalidRequest):
    """A model that cannot be opened safely, or is not whole."""

    code, title = "unusable_model", "Unusable model"


class UnsupportedArchitecture(UnusableModel):
    """No family this service knows, or one that the method does not prune."""

    code, title = "unsupported_architecture", "Unsupported architecture"


class UnsafeConfig(UnusableModel):
    """The config asks for code to be run."""

    code, title = "unsafe_config", "Unsafe model config"


class PickleCheckpoint(UnusableModel):
    """Only safetensors are opened."""

    code, title = "pickle_checkpoint", "Pickle checkpoints are not opened"


class CorruptSafetensors(UnusableModel):
    """A file that is not what its header says."""

    code, title = "corrupt_safetensors", "Corrupt safetensors file"


class MissingTensors(UnusableModel):
    """Tensors that the architecture has and the files have not."""

    code, title = "missing_tensors", "Missing tensors"


class NotFiniteWeights(UnusableModel):
    """Weights that are infinite or no number."""

    code, title = "not_finite_weights", "Weights that are not finite"


class PathEscapes(UnusableModel):
    """A name that leads out of the model's folder."""

    code, title = "path_escapes", "Path outside its root"


class GatedModel(UnusableModel):
    """The hub has it, and asks for its terms to be accepted first."""

    code, title = "gated_model", "Gated repository"


class ModelTooLarge(UnusableModel):
    """More bytes than the service fetches."""

    code, title = "model_too_large", "Model too large"


class UnusableDataset(InvalidRequest):
    """A text that cannot be read."""

    code, title = "unusable_dataset", "Unusable dataset"


class UploadRefused(InvalidRequest):
    """A part or a file of an upload is not what was announced."""

    code, title = "upload_refused", "Upload refused"


class DestinationRefused(InvalidRequest):
    """The hub or the bucket does not take the artifact: its token, name or rights are wrong."""

    code, title = "destination_refused", "The destination refuses the artifact"


class Unauthenticated(ApiError):
    """The API key is missing, unknown, revoked or expired."""

    code, status, title = "unauthenticated", 401, "Not authenticated"


class Forbidden(ApiError):
    """The API key's role does not allow this."""

    code, status, title = "forbidden", 403, "Not allowed"


class NotFound(ApiError):
    """There is no such thing, or it belongs to another team."""

    code, status, title = "not_found", 404, "Not found"


class Conflict(ApiError):
    """The state of things does not allow this now."""

    code, status, title = "conflict", 409, "Conflict"


class IdempotencyConflict(Conflict):
    """The idempotency key was used before, with another body."""

    code, title = "idempotency_conflict", "Idempotency key reused with another body"


class NoArtifact(Conflict):
    """The job has no artifact, or none that may be published."""

    code, title = "no_artifact", "No artifact"


class OffsetMismatch(Conflict):
    """A part of an upload that does not go on where the last one ended."""

    code, title = "offset_mismatch", "Part does not go on where the last one ended"

    @property
    def received(self) -> int | None:
        """Return how many bytes of the file the server has: the offset to go on from."""
        received = self.members.get("received")
        return received if isinstance(received, int) else None


class NotDiscovered(Conflict):
    """The model's architecture has to be discovered first: `inspect` waits for that.

    Only the server has `model`, its description as far as it is known, and `version`, that of the library which is to
    look at it; None where no worker has said which it has.
    """

    code, title = "not_discovered", "The architecture is not discovered yet"
    model: object = None
    version: str | None = None


class PayloadTooLarge(ApiError):
    """The body has more bytes than the server takes."""

    code, status, title = "payload_too_large", 413, "Body too large"


class SlowRequest(ApiError):
    """The body took longer to arrive than the server waits."""

    code, status, title = "slow_request", 408, "Request took too long to arrive"


class RangeNotSatisfiable(ApiError):
    """The file has no such bytes."""

    code, status, title = "range_not_satisfiable", 416, "Range not satisfiable"


class TooManyRequests(ApiError):
    """More than the server takes of this key or team now; `retry_after` says when to come back."""

    code, status, title = "too_many", 429, "Too many"


class RateLimited(TooManyRequests):
    """Too many requests of this API key."""

    code, title = "rate_limited", "Too many requests"


class QuotaExceeded(TooManyRequests):
    """The team's quota of queued jobs, device hours, stored bytes or discoveries is used up."""

    code, title = "quota_exceeded", "Quota exceeded"


class ServerError(ApiError):
    """The server, or a proxy before it, failed."""


class RunFailed(ServerError):
    """An attempt at a job that ended without a result."""

    code, title = "run_failed", "Run failed"


class GateMissed(RunFailed):
    """The model is pruned and stored, but worse than a gate of the job allows."""

    code, title = "gate_missed", "Gate missed"


class OutOfMemory(RunFailed):
    """The runner needed more memory than there is."""

    code, title = "out_of_memory", "Out of memory"


class TimeLimitExceeded(RunFailed):
    """The attempt took longer than the job may."""

    code, title = "time_limit_exceeded", "Time limit exceeded"


class ReloadCheckFailed(RunFailed):
    """The artifact does not compute after it is loaded what was measured before."""

    code, title = "reload_check_failed", "Reload check failed"


class ExportFailed(RunFailed):
    """Another form could not be written, or its runtime does not run it."""

    code, title = "export_failed", "Export failed"


class ExportMismatch(RunFailed):
    """The exported form does not predict what the artifact does."""

    code, title = "export_mismatch", "Export does not compute what the artifact does"


class RecoveryDiverged(RunFailed):
    """The training loss is no longer a number."""

    code, title = "recovery_diverged", "Recovery diverged"


class ZerosRefilled(RunFailed):
    """A pruned weight came back in the recovery."""

    code, title = "zeros_refilled", "Recovery refilled pruned weights"


class SweepFailed(RunFailed):
    """No job of a sweep succeeded."""

    code, title = "sweep_failed", "No job of the sweep succeeded"


class ConstraintsNotMet(RunFailed):
    """No model that a search looked at keeps its limits."""

    code, title = "constraints_not_met", "No model keeps the limits"


class TargetUnreachable(RunFailed):
    """No shape of the model is as fast as asked."""

    code, title = "target_unreachable", "Target out of reach"


class LatencyTooNoisy(RunFailed):
    """The timings differ by more than the gain asked for."""

    code, title = "latency_too_noisy", "Timings too uneven for the target"


class PublicationExpired(RunFailed):
    """A publication was not done in the time it has."""

    code, title = "publication_expired", "Publication took too long"


class RunnerLost(RunFailed):
    """The runner ended without a result."""

    code, title, retryable = "runner_lost", "The runner ended without a result", True


class DiskFull(RunFailed):
    """No space is left on the server's disk."""

    code, status, title, retryable = "disk_full", 507, "No space left on the disk", True


class InternalError(RunFailed):
    """An unexpected error, which the server logged under `request_id`."""

    code, title = "internal_error", "Internal error"


class Unavailable(ServerError):
    """Something the server needs is away for the moment: whoever waits no longer than `retry_after` is told at once."""

    code, status, title, retryable = "unavailable", 503, "Temporarily unavailable", True
    retry_after = 5


class HubUnavailable(Unavailable):
    """The hub does not answer the server."""

    code, title = "hub_unavailable", "The hub cannot be reached"


class StoreUnavailable(Unavailable):
    """The store of artifacts does not answer the server."""

    code, title = "store_unavailable", "The store cannot be reached"


class StoreOfAnother(StoreUnavailable):
    """The server's store belongs to another installation: its operator has to give it one of its own."""

    code, title = "store_of_another", "The store belongs to another installation"


class DestinationUnavailable(Unavailable):
    """The hub or the bucket that an artifact goes to does not answer the server."""

    code, title = "destination_unavailable", "The destination cannot be reached"
