"""Parts of RFC 9110 for downloads: a single byte range, and lists of entity tags."""

import re
from typing import Any

from secateur_wire.errors import RangeNotSatisfiable

_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}, "example": "…"}}
_FACTS = {
    "ETag": {"description": "The file's SHA-256, in quotes.", "schema": {"type": "string"}},
    "Accept-Ranges": {"description": "Always bytes.", "schema": {"type": "string"}},
}
_CONTENT_RANGE = {"description": "bytes first-last/size.", "schema": {"type": "string"}}

DOWNLOAD_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", "content": _CONTENT, "headers": {**_FACTS}},
    206: {
        "description": "The range asked for.",
        "content": _CONTENT,
        "headers": {**_FACTS, "Content-Range": _CONTENT_RANGE},
    },
    304: {"description": "Not modified.", "headers": {**_FACTS}},
    307: {
        "description": "The file lies in a bucket: an address that is good for a while.",
        "headers": {"Location": {"description": "The presigned address.", "schema": {"type": "string"}}},
    },
    416: {"headers": {"Content-Range": _CONTENT_RANGE | {"description": "bytes */size."}}},
}
"""Answers of a download, for the OpenAPI document."""

_ONE_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE | re.ASCII)


def wanted_range(header: str, size: int) -> tuple[int, int] | None:
    """Return [start, end) of a Range header for a file of `size` bytes; None for a header to ignore.

    Several ranges at once and other units are ignored, as the RFC allows. Raises RangeNotSatisfiable.
    """
    match = _ONE_RANGE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = int(match[2])
        start, end = max(size - length, 0), size
        if length == 0:
            raise _unsatisfiable(size)
    else:
        start = int(match[1])
        if match[2] != "" and int(match[2]) < start:
            return None
        end = size if match[2] == "" else min(int(match[2]) + 1, size)
    if start >= size:
        raise _unsatisfiable(size)
    return start, end


def is_listed(etag: str, header: str) -> bool:
    """Return whether an If-None-Match header contains the tag (compared weakly) or any."""
    if header.strip() == "*":
        return True
    return etag in {each.strip().removeprefix("W/") for each in header.split(",")}


def _unsatisfiable(size: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(f"the file has {size} bytes", param="Range")
