"""Checks of answers: which answers pass, and which references are refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.datasets.checks import CHECKS, find_check
from secateur_wire.errors import UnusableDataset

CHOICE = {"choices": ["yes", "no", "not sure"], "answer": "no"}
SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}}}
CALL = {"name": "weather", "arguments": {"city": "Bonn", "days": 2}}

PASSES: list[tuple[str, Any, str]] = [
    ("exact_match", "a cat", " a\n cat "),
    ("exact_match", ["a cat", "the cat"], "the cat"),
    ("contains", ["Bonn", "Rhine"], "On the rhine lies BONN."),
    ("number", "1,234.50", "It costs $1234.5 in all"),
    ("number", "5 and 7 make 12\n#### 12", "So there are **12** apples"),
    ("number", -3, "from 10 to 7 is \N{MINUS SIGN}3"),
    ("number", 3, "10-3"),
    ("choice", CHOICE, "No, because yes would be wrong."),
    ("choice", {"choices": ["A", "B"], "answer": "B"}, "a good guess is (B), not A"),
    ("choice", {"choices": ["good", "good enough"], "answer": "good enough"}, "Good enough!"),
    ("json_schema", SCHEMA, 'Here it is:\n```json\n{"name": "Ada"}\n```'),
    (
        "function_call",
        CALL,
        '<tool_call>\n{"name": "weather", "parameters": {"days": 2, "city": "Bonn"}}\n</tool_call>',
    ),
    ("function_call", CALL, json.dumps([{"function": CALL | {"arguments": json.dumps(CALL["arguments"])}}])),
    ("function_call", {"name": "weather"}, '[TOOL_CALLS][{"name": "weather", "arguments": {}}]'),
    ("function_call", [CALL, {"name": "stop"}], json.dumps([CALL, {"name": "stop", "arguments": {}}])),
    ("instructions", {"words": {"at_most": 3}, "keywords": ["cat"]}, "The Cat sat."),
    ("instructions", {"bullets": {"exactly": 2}, "forbidden": ["dog"]}, "Pets:\n- a hot-dogged cat\n2. a fish"),
    ("instructions", {"sentences": {"exactly": 2}, "paragraphs": {"exactly": 2}}, "One is 1.5.\n\nTwo!"),
    ("instructions", {"case": "lower", "commas": False}, "all of it is small"),
    ("instructions", {"case": "upper", "starts_with": "SO", "ends_with": "DONE."}, "SO IT IS DONE."),
    ("instructions", {"json": True, "lines": {"at_most": 1}}, '["a", "b"]'),
    ("instructions", {"characters": {"at_least": 2, "at_most": 4}}, "三つ"),
]

FAILS: list[tuple[str, Any, str]] = [
    ("exact_match", "a cat", "a Cat"),
    ("contains", ["Bonn", "Rhine"], "Bonn"),
    ("number", 12, "12 is 7 + 5"),
    ("number", 12, "1,2"),
    ("choice", CHOICE, "Not sure. No?"),
    ("json_schema", SCHEMA, '{"name": "ada"}'),
    ("json_schema", SCHEMA, 'Here it is: {"name": "Ada"}'),
    ("json_schema", {}, "NaN"),
    ("json_schema", {}, "[" * 100 + "]" * 100),
    ("function_call", CALL, '{"name": "weather", "arguments": {"city": "Bonn", "days": 3}}'),
    ("function_call", CALL, json.dumps([CALL, CALL])),
    ("function_call", {"name": "a", "arguments": {"on": 1}}, '{"name": "a", "arguments": {"on": true}}'),
    ("instructions", {"words": {"at_most": 3}}, "one two three four"),
    ("instructions", {"keywords": ["cat"]}, "concatenate"),
    ("instructions", {"forbidden": ["dog"]}, "A dog."),
    ("instructions", {"bullets": {"exactly": 2}}, "- one"),
    ("instructions", {"case": "lower"}, "All"),
    ("instructions", {"commas": False}, "one, two"),
    ("instructions", {"json": True}, "none"),
    ("instructions", {"words": {"at_most": 3}}, "  "),
]

BAD: list[tuple[str, Any, str]] = [
    ("exact_match", 5, "a text or a list of texts"),
    ("contains", ["a", " "], "none of them empty"),
    ("number", "about 12", "a number"),
    ("number", float("nan"), "a number"),
    ("choice", {"choices": ["a", "b"], "answer": "c"}, "none of the choices"),
    ("json_schema", {"type": "text"}, "no JSON schema"),
    ("json_schema", {"pattern": "(?=a)a"}, "regex"),
    ("json_schema", {"$ref": "http://127.0.0.1:9/schema"}, "not fetched"),
    ("json_schema", "{}", "an object"),
    ("function_call", [], "a list of calls"),
    ("instructions", {}, "no instruction"),
    ("instructions", {"wrds": {"at_most": 3}}, "wrds"),
    ("instructions", {"words": {}}, "at_least, at_most or exactly"),
    ("instructions", {"words": {"at_least": 5, "at_most": 3}}, "more than at_most"),
]


@pytest.mark.parametrize(("check", "reference", "answer"), PASSES)
def test_a_right_answer_passes(check: str, reference: Any, answer: str) -> None:
    assert CHECKS[check].passes(answer, reference)


@pytest.mark.parametrize(("check", "reference", "answer"), FAILS)
def test_a_wrong_answer_does_not(check: str, reference: Any, answer: str) -> None:
    assert not CHECKS[check].passes(answer, reference)


@pytest.mark.parametrize(("check", "reference", "reason"), BAD)
def test_a_bad_reference_is_refused_with_its_line(check: str, reference: Any, reason: str) -> None:
    with pytest.raises(UnusableDataset, match=f"tasks.jsonl line 7: bad reference for the check '{check}'") as refusal:
        find_check(check, reference, "tasks.jsonl line 7")
    assert reason in str(refusal.value)


@pytest.mark.parametrize("check", CHECKS)
@given(answer=st.text() | st.from_regex(r"```json\n[\[\]{}\",:0-9 ]*```") | st.from_regex(r"[-0-9.,]+"))
def test_no_answer_makes_a_check_fail_with_an_error(check: str, answer: str) -> None:
    reference = next(each for name, each, _ in PASSES if name == check)
    assert CHECKS[check].passes(answer, reference) in (True, False)


def test_a_schema_with_a_hostile_pattern_ends_at_once() -> None:
    assert not CHECKS["json_schema"].passes(json.dumps("a" * 10_000 + "!"), {"pattern": "^(a+)+$"})
    assert CHECKS["json_schema"].passes("{}", {"$ref": "#"})
