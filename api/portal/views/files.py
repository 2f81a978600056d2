"""Files in pages: charts that the server draws, and tables for spreadsheets."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Annotated

from fastapi import Header
from pydantic import JsonValue
from starlette.responses import Response

from api.http.ranges import is_listed
from core.storage import attachment

IfNoneMatch = Annotated[str | None, Header()]
"""ETag of the chart that a browser has."""


def chart(
    figures: str, if_none_match: str | None, draw: Callable[[], str | bytes], *, media_type: str = "image/svg+xml"
) -> Response:
    """Answer with a chart of `figures`, drawn only if the browser does not have it yet.

    The chart has its own styles for when it is opened alone. `draw` imports its drawing library itself: that is slow,
    and the API starts without it.
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


def csv_file(name: str, rows: Iterable[Sequence[JsonValue]]) -> Response:
    """Answer with a CSV file of that name; cells are escaped so that no spreadsheet reads one as a formula."""
    target = io.StringIO()
    csv.writer(target, lineterminator="\r\n").writerows([_cell(value) for value in row] for row in rows)
    headers = {"Content-Disposition": attachment(name)}
    return Response(target.getvalue().encode(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
