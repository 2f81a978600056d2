"""Tables as files that spreadsheets open."""

import csv
import io
from collections.abc import Iterable, Sequence

from pydantic import JsonValue
from starlette.responses import Response

from core.storage import attachment


def csv_file(name: str, rows: Iterable[Sequence[JsonValue]]) -> Response:
    """Answer with a CSV file of that name; no spreadsheet takes any of its cells for a formula."""
    target = io.StringIO()
    csv.writer(target, lineterminator="\r\n").writerows([_cell(value) for value in row] for row in rows)
    headers = {"Content-Disposition": attachment(name)}
    return Response(target.getvalue().encode(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
