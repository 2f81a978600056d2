"""The parts of RFC 9110 a download needs: one byte range, and lists of entity tags."""

import re

from core.errors import RangeNotSatisfiable

_ONE_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE | re.ASCII)


def wanted_range(header: str, size: int) -> tuple[int, int] | None:
    """[start, end) of a Range header for a file of `size` bytes; None where it is to be ignored.

    Ignored are several ranges at once and what is no byte range, as the RFC allows. Raises RangeNotSatisfiable.
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
    """Whether an If-None-Match header names the tag (weakly compared) or any."""
    if header.strip() == "*":
        return True
    return etag in {each.strip().removeprefix("W/") for each in header.split(",")}


def _unsatisfiable(size: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(f"the file has {size} bytes", param="Range")
