"""Parser of untrusted JSON that refuses documents with too many values, too many levels, or repeated names."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

Members = list[tuple[str, Any]]


@dataclass(frozen=True)
class JsonLimits:
    """Largest number of values and of levels in one document.

    Parsing takes some 100 bytes of memory and a fraction of a microsecond per value, even if the text is short.
    """

    values: int
    levels: int


FILE_LIMITS: Final = JsonLimits(values=2_000_000, levels=64)
"""Limits of a file: the header of a large model has a few hundred thousand values."""


_LONGEST_PATH_KEY: Final = 200
"""Largest number of characters of one key in a path."""


class JsonLimitExceeded(ValueError):
    """Document above one of its limits; `reason` completes a sentence about it: `holds more than 10 values`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"it {reason}")
        self.reason = reason


def parse_json(
    text: bytes,
    limits: JsonLimits = FILE_LIMITS,
    *,
    members: Callable[[Members], Any] | None = None,
    constant: Callable[[str], Any] | None = None,
) -> Any:
    """Parse a JSON document; raises ValueError with a short reason if it is invalid, too large or too deep.

    The values are counted before the parser reads the text, because the parser creates an object for each value.
    `members` makes an object from its members, by default a dictionary that refuses repeated names. `constant` is
    called for NaN and infinities.
    """
    if text.count(b",") + text.count(b"[") + text.count(b"{") > limits.values:
        raise JsonLimitExceeded(f"holds more than {limits.values} values")
    try:
        value = json.loads(text, object_pairs_hook=members or _with_unique_names, parse_constant=constant)
    except RecursionError:
        raise _too_deep(limits) from None
    level = [value]
    for _ in range(limits.levels):
        level = [inner for each in level for inner in _child_values(each)]
        if not level:
            return value
    raise _too_deep(limits)


def entries_of(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (path, key, value) of every entry of every object inside; the path is for messages, long keys are cut."""
    if isinstance(value, dict):
        for key, inner in value.items():
            here = path_to(path, key)
            yield here, key, inner
            if isinstance(inner, dict | list):
                yield from entries_of(inner, here)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from entries_of(inner, path_to(path, index))


def path_to(path: str, key: str | int) -> str:
    """Return the path of an entry in the value at `path`, for messages.

    A long key is cut, because it would be copied once for each entry below it.
    """
    step = str(key)[:_LONGEST_PATH_KEY]
    return f"{path}.{step}" if path else step


def _with_unique_names(pairs: Members) -> dict[str, Any]:
    """Return the members as a dictionary; refuses a repeated name, since readers differ in which value they use."""
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{twice[:100]!r} is given twice")
    return members


def _child_values(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep(limits: JsonLimits) -> JsonLimitExceeded:
    return JsonLimitExceeded(f"is nested deeper than {limits.levels} levels")
