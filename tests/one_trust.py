"""One TLS context for all HTTP clients of a process that trust the same.

A program has a client or two. Tests make thousands in a run, each of which would read all certificate authorities anew,
for which it takes longer than for the request, and most speak plain HTTP.
"""

import os
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx._transports.default
import httpx2._transports.default

_CREATE = "create_ssl_context"


def share_trust() -> None:
    """Let all HTTP clients that are made from here on share one TLS context."""
    for library in (httpx._transports.default, httpx2._transports.default):
        setattr(library, _CREATE, _shared(getattr(library, _CREATE)))


def _shared(create: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    @cache
    def created(places: tuple[str | None, ...], **options: Any) -> ssl.SSLContext:
        return create(**options)

    def of_now(**options: Any) -> ssl.SSLContext:
        return created((os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")), **options)

    return of_now
