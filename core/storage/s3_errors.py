"""Errors of s3fs and what is below it, as those of a store."""

import concurrent.futures
import contextlib
from collections.abc import Iterator

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from core.errors import DiskFull, StoreUnavailable

UNREACHABLE = (OSError, BotoCoreError, ClientError, aiohttp.ClientError, concurrent.futures.CancelledError)


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Translate the library's errors into StoreUnavailable and DiskFull."""
    try:
        yield
    except UNREACHABLE as error:
        raise unavailable(error) from error


def error_code(error: BaseException) -> str:
    """Return the code that the service gave an error; empty where it gave none."""
    response = getattr(error.__cause__ or error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def unavailable(error: BaseException) -> StoreUnavailable | DiskFull:
    response = getattr(error.__cause__ or error, "response", None)
    if isinstance(response, dict) and response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 507:
        return DiskFull(f"the store has no space left: {error}")
    return StoreUnavailable(f"the store cannot be used right now: {type(error).__name__}: {str(error)[:300]}")
