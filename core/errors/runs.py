"""Errors of attempts, and of services that are away."""

from core.errors.base import SecateurError


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


class ExportFailed(RunFailed):
    code, title = "export_failed", "Export failed"


class ExportMismatch(RunFailed):
    code, title = "export_mismatch", "Export does not compute what the artifact does"


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


class StoreOfAnother(StoreUnavailable):
    code, title = "store_of_another", "The store belongs to another installation"


class DestinationUnavailable(Unavailable):
    code, title = "destination_unavailable", "The destination cannot be reached"
