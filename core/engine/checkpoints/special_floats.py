"""Floats that JSON has no word for, in a config.json as transformers writes it: {"__float__": "Infinity"}."""

from typing import Final

from pydantic import JsonValue

FLOAT_TAG: Final = "__float__"
"""The key of an object that stands for a float."""


def with_floats(value: JsonValue) -> JsonValue:
    """Return a setting with the floats that are written as objects."""
    if isinstance(value, dict):
        return (
            float(str(value[FLOAT_TAG]))
            if set(value) == {FLOAT_TAG}
            else {name: with_floats(each) for name, each in value.items()}
        )
    return [with_floats(each) for each in value] if isinstance(value, list) else value
