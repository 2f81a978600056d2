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

    `status` is HTTP's, `retry_after` the seconds after which the server suggests a retry, `members` further members of
    the problem document. `needs_change`: a job that ended so would end so again. A client also has `request_id` of the
    server's logs, `repeated`, True if an earlier try's connection broke before its answer, and `hint`, advice.
    """

    code = "internal_error"
    status: int = 500
    title: str = "Internal error"
    needs_change: bool = False
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
        """Return the message under its name in a problem document."""
        return self.message


class InvalidRequest(ApiError):
    """The request is invalid; `param` names the field."""

    code, status, title, needs_change = "invalid_request", 422, "Invalid request", True


class UnknownMethod(InvalidRequest):
    """No method of this name."""

    code, title, needs_change = "unknown_method", "Unknown method", False


class UnknownModel(InvalidRequest):
    """No model of this name."""

    code, title, needs_change = "unknown_model", "Unknown model", False


class UnknownDataset(InvalidRequest):
    """No text of this name."""

    code, title, needs_change = "unknown_dataset", "Unknown dataset", False


class InvalidSparsity(InvalidRequest):
    """A sparsity that the method or pattern cannot reach."""

    code, title, needs_change = "invalid_sparsity", "Invalid sparsity", True


class InvalidTarget(InvalidRequest):
    """A target that the method cannot reach, or that does not apply to it; the message names the nearest one."""

    code, title, needs_change = "invalid_target", "Invalid target", True


class InvalidPattern(InvalidRequest):
    """A pattern that the method does not know."""

    code, title, needs_change = "invalid_pattern", "Invalid pattern", True


class InvalidParameters(InvalidRequest):
    """Parameters that the method does not take."""

    code, title, needs_change = "invalid_parameters", "Invalid parameters", True


class IndivisibleWidth(InvalidRequest):
    """A layer's input width is not divisible by the m of n:m."""

    code, title, needs_change = "indivisible_width", "Input width does not divide by m", True


class DiscoveryFailed(InvalidRequest):
    """The discovery of the model's architecture ended without an answer."""

    code, title, needs_change = "discovery_failed", "Discovery of the architecture failed", False


class TooLittleText(InvalidRequest):
    """The text has fewer tokens than the request needs."""

    code, title, needs_change = "too_little_text", "Too little text", True


class TooFewImages(InvalidRequest):
    """The set has fewer images than the request needs."""

    code, title, needs_change = "too_few_images", "Too few images", True


class UnknownQueue(InvalidRequest):
    """No queue of this name."""

    code, title, needs_change = "unknown_queue", "Unknown queue", True


class UnsafeAddress(InvalidRequest):
    """A URL that the server must not call: not https, or not at a public address."""

    code, title, needs_change = "unsafe_address", "Unsafe address", False


class DoesNotFit(InvalidRequest):
    """No worker of the queue has the memory or disk that the job needs."""

    code, title, needs_change = "does_not_fit", "No worker of the queue can hold the job", False


class UnusableModel(InvalidRequest):
    """A model that cannot be opened safely, or is incomplete."""

    code, title, needs_change = "unusable_model", "Unusable model", True


class UnsupportedArchitecture(UnusableModel):
    """An architecture that this service does not know, or that the method does not prune."""

    code, title, needs_change = "unsupported_architecture", "Unsupported architecture", True


class UnsafeConfig(UnusableModel):
    """The config requires the execution of code."""

    code, title, needs_change = "unsafe_config", "Unsafe model config", True


class PickleCheckpoint(UnusableModel):
    """A pickle checkpoint; only safetensors are opened."""

    code, title, needs_change = "pickle_checkpoint", "Pickle checkpoints are not opened", True


class CorruptSafetensors(UnusableModel):
    """A file whose content does not match its header."""

    code, title, needs_change = "corrupt_safetensors", "Corrupt safetensors file", True


class MissingTensors(UnusableModel):
    """The files lack tensors of the architecture."""

    code, title, needs_change = "missing_tensors", "Missing tensors", True


class NotFiniteWeights(UnusableModel):
    """Weights that are infinite or NaN."""

    code, title, needs_change = "not_finite_weights", "Weights that are not finite", True


class PathEscapes(UnusableModel):
    """A name that leads out of the model's folder."""

    code, title, needs_change = "path_escapes", "Path outside its root", True


class GatedModel(UnusableModel):
    """The hub requires that its terms are accepted first."""

    code, title, needs_change = "gated_model", "Gated repository", False


class ModelTooLarge(UnusableModel):
    """The model has more bytes than the service fetches."""

    code, title, needs_change = "model_too_large", "Model too large", False


class UnusableDataset(InvalidRequest):
    """A text that cannot be read."""

    code, title, needs_change = "unusable_dataset", "Unusable dataset", True


class UploadRefused(InvalidRequest):
    """A part or a file of an upload differs from the announcement."""

    code, title, needs_change = "upload_refused", "Upload refused", False


class DestinationRefused(InvalidRequest):
    """The hub or the bucket refuses the artifact: its token, name or rights are wrong."""

    code, title, needs_change = "destination_refused", "The destination refuses the artifact", False


class Unauthenticated(ApiError):
    """The API key is missing, unknown, revoked or expired."""

    code, status, title = "unauthenticated", 401, "Not authenticated"


class Forbidden(ApiError):
    """The API key's role does not allow this."""

    code, status, title = "forbidden", 403, "Not allowed"


class NotFound(ApiError):
    """The object does not exist, or belongs to another team."""

    code, status, title, needs_change = "not_found", 404, "Not found", True


class Conflict(ApiError):
    """The current state does not allow this."""

    code, status, title, needs_change = "conflict", 409, "Conflict", True


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with another body."""

    code, title, needs_change = "idempotency_conflict", "Idempotency key reused with another body", False


class NoArtifact(Conflict):
    """The job has no artifact, or none that may be published."""

    code, title, needs_change = "no_artifact", "No artifact", False


class OffsetMismatch(Conflict):
    """A part of an upload that does not begin where the last one ended."""

    code, title, needs_change = "offset_mismatch", "Part does not go on where the last one ended", False

    @property
    def received(self) -> int | None:
        """Return the number of the file's bytes on the server: the offset to continue from."""
        received = self.members.get("received")
        return received if isinstance(received, int) else None


class NotDiscovered(Conflict):
    """The model's architecture has to be discovered first: `inspect` waits for that.

    Only the server sets `model`, the known part of its description, and `version`, the library version for the
    discovery; None where no worker has reported one.
    """

    code, title, needs_change = "not_discovered", "The architecture is not discovered yet", False
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

    code, title, needs_change = "run_failed", "Run failed", False


class GateMissed(RunFailed):
    """The model is pruned and stored, but does not meet a gate of the job."""

    code, title, needs_change = "gate_missed", "Gate missed", True


class OutOfMemory(RunFailed):
    """The runner needed more memory than the worker has."""

    code, title, needs_change = "out_of_memory", "Out of memory", False


class TimeLimitExceeded(RunFailed):
    """The attempt took longer than its time limit."""

    code, title, needs_change = "time_limit_exceeded", "Time limit exceeded", False


class ReloadCheckFailed(RunFailed):
    """The artifact gives other results after loading than before."""

    code, title, needs_change = "reload_check_failed", "Reload check failed", False


class ExportFailed(RunFailed):
    """An additional form could not be written, or its runtime does not run it."""

    code, title, needs_change = "export_failed", "Export failed", False


class ExportMismatch(RunFailed):
    """The exported form's predictions differ from the artifact's."""

    code, title, needs_change = "export_mismatch", "Export does not compute what the artifact does", False


class RecoveryDiverged(RunFailed):
    """The training loss is no longer a number."""

    code, title, needs_change = "recovery_diverged", "Recovery diverged", True


class ZerosRefilled(RunFailed):
    """A pruned weight came back in the recovery."""

    code, title, needs_change = "zeros_refilled", "Recovery refilled pruned weights", False


class SweepFailed(RunFailed):
    """No job of a sweep succeeded."""

    code, title, needs_change = "sweep_failed", "No job of the sweep succeeded", False


class ConstraintsNotMet(RunFailed):
    """No model in a search meets its limits."""

    code, title, needs_change = "constraints_not_met", "No model keeps the limits", False


class TargetUnreachable(RunFailed):
    """No shape of the model is as fast as the target."""

    code, title, needs_change = "target_unreachable", "Target out of reach", True


class LatencyTooNoisy(RunFailed):
    """The timings differ by more than the requested gain."""

    code, title, needs_change = "latency_too_noisy", "Timings too uneven for the target", False


class PublicationExpired(RunFailed):
    """A publication did not end within its time limit."""

    code, title, needs_change = "publication_expired", "Publication took too long", False


class RunnerLost(RunFailed):
    """The runner ended without a result."""

    code, title, retryable, needs_change = "runner_lost", "The runner ended without a result", True, False


class DiskFull(RunFailed):
    """No space is left on the server's disk."""

    code, status, title, retryable, needs_change = "disk_full", 507, "No space left on the disk", True, False


class InternalError(RunFailed):
    """An unexpected error, logged by the server under `request_id`."""

    code, title, needs_change = "internal_error", "Internal error", False


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
