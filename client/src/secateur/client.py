"""Blocking client of the service."""

from types import TracebackType
from typing import Self

from secateur.configuration import resolve
from secateur.operations import Operations
from secateur.transport import Transport
from secateur.transport.retries import RETRIES, TIMEOUT_SECONDS, OnRetry, RetryPolicy


class Client(Operations):
    """A blocking client, for one thread at a time, closed at the end (or used in a `with`).

    `url` and `api_key` are optional: see `secateur.configuration`. `timeout` is the wait in seconds for an answer;
    calls that take the server long have a longer one. A call that fails temporarily is repeated up to `retries` times,
    and `on_retry` gets the failure and the pause. Every method raises `secateur.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        on_retry: OnRetry | None = None,
    ) -> None:
        super().__init__(Transport(resolve(url, api_key), RetryPolicy(timeout, retries, on_retry)))

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
