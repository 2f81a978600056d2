"""JSON Pointers (RFC 6901) to values in a payload."""

import re
from typing import Annotated, Any, Final

from secateur_wire.requests import spelled

Pointer = Annotated[
    str,
    spelled(
        r"^(/([^~/]|~[01])*)*$",
        "a JSON Pointer such as /repo/headSha: a slash before each name, ~1 for a slash in a name, ~0 for a tilde",
        max_length=500,
    ),
]
"""Pointer such as `/repo/headSha`; `~1` stands for a slash within a name, `~0` for a tilde; the empty pointer is the
whole payload."""

MISSING: Final = object()
"""Result of `look_up` where the document has no value."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def look_up(document: Any, pointer: str) -> Any:
    """Return the value at the pointer, or MISSING."""
    value = document
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return MISSING
    return value
