"""Base of the error tree."""

from typing import ClassVar, TypedDict


class Problem(TypedDict):
    """An error as it is stored on a job and sent by the runner."""

    code: str
    message: str
    param: str | None
    retryable: bool


def summary_of_problem(problem: Problem) -> dict[str, str]:
    """Return what is kept of an error that several people may be shown: not the parameter of somebody's request."""
    return {"code": problem["code"], "message": problem["message"]}


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

    def problem(self) -> Problem:
        """Return the error as stored on a job and sent by the runner: `code`, `message`, `param`, `retryable`."""
        return {"code": self.code, "message": self.message, "param": self.param, "retryable": self.retryable}
