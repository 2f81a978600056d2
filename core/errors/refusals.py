"""Errors of requests that are refused whatever they ask for: who asks, how often, how much, and in which state."""

from core.errors.base import SecateurError


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


class NotDiscovered(Conflict):
    """Model whose architecture has to be discovered first.

    `model` is what is known of it (`core.engine.architectures.undiscovered.UndiscoveredModel`), `version` that of the
    library that is to look at it; None where no worker has said which it has.
    """

    code, title = "not_discovered", "The architecture is not discovered yet"

    def __init__(self, message: str, *, model: object, version: str | None, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.model = model
        self.version = version


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
