"""Floats that JSON cannot write, in a config.json of transformers: {"__float__": "Infinity"}."""

from typing import Final

from pydantic import JsonValue

FLOAT_TAG: Final = "__float__"
"""Key of an object that stands for a float."""


def with_floats(value: JsonValue) -> JsonValue:
    """Return a setting with the tagged objects replaced by floats."""
    if isinstance(value, dict):
        return (
            float(str(value[FLOAT_TAG]))
            if set(value) == {FLOAT_TAG}
            else {name: with_floats(each) for name, each in value.items()}
        )
    return [with_floats(each) for each in value] if isinstance(value, list) else value
