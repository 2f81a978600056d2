"""The one error tree. Every error has a stable `code`, an HTTP status and, where it applies, the `param` at fault.

SecateurError
├── InvalidRequest            422  what was asked cannot be meant
│   ├── UnknownMethod  UnknownModel  UnknownDataset
│   ├── InvalidSparsity  InvalidTarget  InvalidPattern  InvalidParameters
│   ├── IndivisibleWidth      a layer's input width does not divide by m
│   ├── UnsupportedArchitecture
│   ├── TooLittleText         fewer calibration or evaluation tokens than asked for
│   ├── TooFewImages          the same of images
│   ├── UnknownQueue          no such queue here
│   ├── UnsafeAddress         a URL this service must not call
│   └── DoesNotFit            no worker of the queue has the memory or disk the job needs
├── UnusableModel             422  the model folder cannot be opened safely
│   ├── UnsafeConfig  PickleCheckpoint  CorruptSafetensors  MissingTensors  NotFiniteWeights  PathEscapes
│   ├── GatedModel            the hub has it, and asks for terms to be accepted first
│   └── ModelTooLarge         more bytes than this service fetches
├── UnusableDataset           422
├── UploadRefused             422  a part or file of an upload is not what was announced
├── DestinationRefused        422  the hub or the bucket an artifact is published to does not take it
├── Unauthenticated           401
├── Forbidden                 403
├── NotFound                  404
├── Conflict                  409
│   ├── IdempotencyConflict
│   ├── NoArtifact            the job has left nothing, or it was removed
│   └── OffsetMismatch        a part of an upload that does not go on where the last one ended
├── SlowRequest               408  the body dripped in
├── PayloadTooLarge           413
├── RangeNotSatisfiable       416
├── TooMany                   429, with Retry-After
│   ├── RateLimited           requests of one key
│   └── QuotaExceeded         a team's queued jobs, device hours or stored bytes
├── RunFailed                 500  how an attempt ended
│   ├── GateMissed  OutOfMemory  TimeLimitExceeded  ReloadCheckFailed  RunnerLost  InternalError
│   ├── RecoveryDiverged      the training loss is no longer a number
│   ├── ZerosRefilled         a pruned weight came back
│   ├── SweepFailed           no job of a sweep succeeded
│   ├── ConstraintsNotMet     no model a search looked at keeps its limits
│   ├── TargetUnreachable     no shape of the model is as fast as asked
│   ├── LatencyTooNoisy       timings differ by more than the gain asked for
│   └── PublicationExpired    not done in the time a publication has
└── Unavailable               503, with Retry-After
    └── HubUnavailable  StoreUnavailable  DestinationUnavailable
"""

from typing import Any, ClassVar


class SecateurError(Exception):
    """Base of all errors a user can meet.

    `code` is stable and machine readable, `status` the HTTP status, `retryable` whether another attempt
    of the same job could end differently.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def problem(self) -> dict[str, Any]:
        """Return the error as stored on a job and sent by the runner: `code`, `message`, `param`, `retryable`."""
        return {"code": self.code, "message": self.message, "param": self.param, "retryable": self.retryable}


class InvalidRequest(SecateurError):
    code, status, title = "invalid_request", 422, "Invalid request"


class UnknownMethod(InvalidRequest):
    code, title = "unknown_method", "Unknown method"


class UnknownModel(InvalidRequest):
    code, title = "unknown_model", "Unknown model"


class UnknownDataset(InvalidRequest):
    code, title = "unknown_dataset", "Unknown dataset"


class InvalidSparsity(InvalidRequest):
    code, title = "invalid_sparsity", "Invalid sparsity"


class InvalidTarget(InvalidRequest):
    code, title = "invalid_target", "Invalid target"


class InvalidPattern(InvalidRequest):
    code, title = "invalid_pattern", "Invalid pattern"


class InvalidParameters(InvalidRequest):
    code, title = "invalid_parameters", "Invalid parameters"


class IndivisibleWidth(InvalidRequest):
    code, title = "indivisible_width", "Input width does not divide by m"


class UnsupportedArchitecture(InvalidRequest):
    code, title = "unsupported_architecture", "Unsupported architecture"


class TooLittleText(InvalidRequest):
    code, title = "too_little_text", "Too little text"


class TooFewImages(InvalidRequest):
    code, title = "too_few_images", "Too few images"


class UnknownQueue(InvalidRequest):
    code, title = "unknown_queue", "Unknown queue"


class UnsafeAddress(InvalidRequest):
    code, title = "unsafe_address", "Unsafe address"


class DoesNotFit(InvalidRequest):
    code, title = "does_not_fit", "No worker of the queue can hold the job"


class UnusableModel(SecateurError):
    code, status, title = "unusable_model", 422, "Unusable model"


class UnsafeConfig(UnusableModel):
    code, title = "unsafe_config", "Unsafe model config"


class PickleCheckpoint(UnusableModel):
    code, title = "pickle_checkpoint", "Pickle checkpoints are not opened"


class CorruptSafetensors(UnusableModel):
    code, title = "corrupt_safetensors", "Corrupt safetensors file"


class MissingTensors(UnusableModel):
    code, title = "missing_tensors", "Missing tensors"


class NotFiniteWeights(UnusableModel):
    code, title = "not_finite_weights", "Weights that are not finite"


class PathEscapes(UnusableModel):
    code, title = "path_escapes", "Path outside its root"


class GatedModel(UnusableModel):
    code, title = "gated_model", "Gated repository"


class ModelTooLarge(UnusableModel):
    code, title = "model_too_large", "Model too large"


class UnusableDataset(SecateurError):
    code, status, title = "unusable_dataset", 422, "Unusable dataset"


class UploadRefused(SecateurError):
    code, status, title = "upload_refused", 422, "Upload refused"


class DestinationRefused(SecateurError):
    code, status, title = "destination_refused", 422, "The destination refuses the artifact"


class Unauthenticated(SecateurError):
    code, status, title = "unauthenticated", 401, "Not authenticated"


class Forbidden(SecateurError):
    code, status, title = "forbidden", 403, "Not allowed"


class NotFound(SecateurError):
    code, status, title = "not_found", 404, "Not found"


class Conflict(SecateurError):
    code, status, title = "conflict", 409, "Conflict"


class IdempotencyConflict(Conflict):
    code, title = "idempotency_conflict", "Idempotency key reused with another body"


class NoArtifact(Conflict):
    code, title = "no_artifact", "No artifact"


class OffsetMismatch(Conflict):
    """Part with a wrong offset; `received` is how many bytes of the file are there: the offset to go on from."""

    code, title = "offset_mismatch", "Part does not go on where the last one ended"

    def __init__(self, message: str, *, received: int, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.received = received


class PayloadTooLarge(SecateurError):
    code, status, title = "payload_too_large", 413, "Body too large"


class SlowRequest(SecateurError):
    code, status, title = "slow_request", 408, "Request took too long to arrive"


class RangeNotSatisfiable(SecateurError):
    code, status, title = "range_not_satisfiable", 416, "Range not satisfiable"


class TooMany(SecateurError):
    """Too many requests or jobs; `retry_after` is in seconds."""

    code, status, title = "too_many", 429, "Too many"

    def __init__(self, message: str, *, retry_after: float, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class RateLimited(TooMany):
    code, title = "rate_limited", "Too many requests"


class QuotaExceeded(TooMany):
    code, title = "quota_exceeded", "Quota exceeded"


class RunFailed(SecateurError):
    code, title = "run_failed", "Run failed"


class GateMissed(RunFailed):
    code, title = "gate_missed", "Gate missed"


class OutOfMemory(RunFailed):
    code, title = "out_of_memory", "Out of memory"


class TimeLimitExceeded(RunFailed):
    code, title = "time_limit_exceeded", "Time limit exceeded"


class ReloadCheckFailed(RunFailed):
    code, title = "reload_check_failed", "Reload check failed"


class RecoveryDiverged(RunFailed):
    code, title = "recovery_diverged", "Recovery diverged"


class ZerosRefilled(RunFailed):
    code, title = "zeros_refilled", "Recovery refilled pruned weights"


class SweepFailed(RunFailed):
    code, title = "sweep_failed", "No job of the sweep succeeded"


class ConstraintsNotMet(RunFailed):
    code, title = "constraints_not_met", "No model keeps the limits"


class TargetUnreachable(RunFailed):
    code, title = "target_unreachable", "Target out of reach"


class LatencyTooNoisy(RunFailed):
    code, title = "latency_too_noisy", "Timings too uneven for the target"


class PublicationExpired(RunFailed):
    code, title = "publication_expired", "Publication took too long"


class RunnerLost(RunFailed):
    code, title, retryable = "runner_lost", "The runner ended without a result", True


class DiskFull(RunFailed):
    code, status, title, retryable = "disk_full", 507, "No space left on the disk", True


class InternalError(RunFailed):
    code, title = "internal_error", "Internal error"


class Unavailable(SecateurError):
    """Temporary failure; `retry_after` is in seconds: whoever waits no longer than that is told at once."""

    code, status, title, retryable = "unavailable", 503, "Temporarily unavailable", True

    def __init__(self, message: str, *, param: str | None = None, retry_after: int = 5) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class HubUnavailable(Unavailable):
    code, title = "hub_unavailable", "The hub cannot be reached"


class StoreUnavailable(Unavailable):
    code, title = "store_unavailable", "The store cannot be reached"


class DestinationUnavailable(Unavailable):
    code, title = "destination_unavailable", "The destination cannot be reached"
