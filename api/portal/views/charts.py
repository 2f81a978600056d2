"""Charts the server draws, at addresses of their own."""

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

from fastapi import Header
from starlette.responses import Response

from api.http.ranges import is_listed

IfNoneMatch = Annotated[str | None, Header()]
"""ETag of the chart that a browser has."""


def chart(
    figures: str, if_none_match: str | None, draw: Callable[[], str | bytes], *, media_type: str = "image/svg+xml"
) -> Response:
    """Answer with a chart of `figures`, drawn only where the browser does not have it yet.

    Its own styles apply when it is opened alone. `draw` imports its drawing library itself: that is slow to load, and
    the API starts without it.
    """
    etag = f'"{hashlib.sha256((version("secateur-server") + figures).encode()).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    }
    if if_none_match is not None and is_listed(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(draw(), headers=headers, media_type=media_type)
