"""Parser of untrusted JSON: refuses documents that are too large, too deep, or give a name twice."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

MOST_VALUES: Final = 2_000_000
"""Most values of one document: parsing takes some 100 bytes of memory a value, however few bytes the text has."""
MOST_LEVELS: Final = 64


def parse_json(text: bytes) -> Any:
    """Parse a JSON document; raises ValueError with a short reason where it is invalid, too large or too deep."""
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES} values")
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise _too_deep() from None
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return value
    raise _too_deep()


def entries_of(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (path, key, value) of every entry of every object inside."""
    if isinstance(value, dict):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            yield here, key, inner
            if isinstance(inner, dict | list):
                yield from entries_of(inner, here)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from entries_of(inner, f"{path}.{index}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members as a dictionary; refuses a name given twice, since readers differ in which one they use."""
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:100]!r} is given twice")
    return members


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested deeper than {MOST_LEVELS} levels")
