"""Call of a function, in the forms in which chat models write one.

They are `{"name": …, "arguments": {…}}`, alone, in a list, in a fenced block or between `<tool_call>` marks. The
arguments are also known as `parameters`; arguments that are a text are JSON in it; a call may stand in a member
`function`.
"""

import json
import re
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from core.engine.datasets.checks.check import Check
from core.engine.datasets.checks.json_text import parse_answer
from core.engine.datasets.checks.references import read_model

_MARKED: Final = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_LIST_MARK: Final = "[TOOL_CALLS]"


class _Call(BaseModel):
    """Call that is expected; without `arguments` the name alone is compared."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1)
    arguments: dict[str, Any] | None = None


def _read(reference: Any) -> list[_Call]:
    calls = reference if isinstance(reference, list) else [reference]
    if not calls:
        raise ValueError("a call, or a list of calls, is needed")
    return [read_model(_Call, each) for each in calls]


def _calls_them(answer: str, expected: list[_Call]) -> bool:
    """Return True where the answer makes the expected calls, in their order, and no others."""
    calls = _calls(answer)
    return len(calls) == len(expected) and all(
        name == one.name and (one.arguments is None or _same(arguments, one.arguments))
        for (name, arguments), one in zip(calls, expected, strict=True)
    )


def _calls(answer: str) -> list[tuple[str, dict[str, Any]]]:
    """Return name and arguments of each call of an answer; none where a part of it is no call."""
    texts = _MARKED.findall(answer) or [answer.strip().removeprefix(_LIST_MARK)]
    calls: list[tuple[str, dict[str, Any]]] = []
    try:
        for text in texts:
            value = parse_answer(text)
            calls += [_call(each) for each in (value if isinstance(value, list) else [value])]
    except ValueError:
        return []
    return calls


def _call(value: Any) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a call; raises ValueError where the value is none."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("a call names its function")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = parse_answer(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("arguments are an object")
    return value["name"], arguments


def _same(first: Any, second: Any) -> bool:
    """Return True for the same JSON values; unlike Python's ==, true is not 1."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


CHECK = Check("function_call", 6, "the expected calls, in order, in a form that programs read", _read, _calls_them)
