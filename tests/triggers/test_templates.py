"""Templates: filling one changes declared placeholders and nothing else; what cannot be meant is refused when saved."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from core.service.triggers.json_pointer import MISSING, look_up
from core.service.triggers.placeholders import Placeholder, read_values
from core.service.triggers.templates import check_mentions, fill
from secateur_wire.errors import InvalidRequest
from tests.triggers.conftest import make_trigger

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
NAMES = st.text().filter(lambda name: "${" not in name and name != "$payload")
DECLARED = {
    "word": Placeholder(path="/word"),
    "count": Placeholder(path="/count", type="integer"),
    "share": Placeholder(path="/share", type="number"),
    "flag": Placeholder(path="/flag", type="boolean"),
}
VALUES = st.fixed_dictionaries(
    {
        "word": st.text(),
        "count": st.integers(),
        "share": st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(),
    }
)


PIECES = st.lists(st.one_of(st.just("${word}"), st.text().filter(lambda text: "$" not in text)), max_size=5)
LEAVES = st.one_of(
    SCALARS.filter(lambda value: not isinstance(value, str) or "$" not in value),
    st.sampled_from([{"$payload": name} for name in DECLARED]),
    PIECES.map("".join),
)
TEMPLATES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4))
)


def _written(value: Any) -> str:
    """Tells 1 from 1.0 and true, which Python takes for the same."""
    return json.dumps(value)


def _compare(template: Any, filled: Any, values: dict[str, Any]) -> None:
    if isinstance(template, dict) and "$payload" in template:
        assert _written(filled) == _written(values[template["$payload"]])
    elif isinstance(template, dict):
        assert list(filled) == list(template)
        for name in template:
            _compare(template[name], filled[name], values)
    elif isinstance(template, list):
        assert len(filled) == len(template)
        for one, other in zip(template, filled, strict=True):
            _compare(one, other, values)
    elif isinstance(template, str):
        assert filled == values["word"].join(template.split("${word}"))
    else:
        assert _written(filled) == _written(template)


@given(TEMPLATES, VALUES)
def test_filling_changes_declared_placeholders_and_nothing_else(template: Any, values: dict[str, Any]) -> None:
    before = _written(template)
    check_mentions(template, DECLARED)
    _compare(template, fill(template, read_values(DECLARED, values)), values)
    assert _written(template) == before, "the template itself stays"


@given(VALUES, st.text())
def test_what_a_payload_says_is_not_looked_through_again(values: dict[str, Any], word: str) -> None:
    values["word"] = "${count} " + word + ' {"$payload": "count"} $${x}'
    filled = fill({"a": "${word}", "b": {"$payload": "word"}}, values)
    assert filled == {"a": values["word"], "b": values["word"]}


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ({"model": "${branch}"}, "'branch' is not declared"),
        ({"model": {"$payload": "branch"}}, "'branch' is not declared"),
        ({"model": "${word.__class__}"}, "write $${"),
        ({"model": "${word"}, "write $${"),
        ({"${word}": 1}, "not names of members"),
        ({"model": {"$payload": "word", "default": 1}}, "must be the only member"),
        ({"model": {"$payload": {"$payload": "word"}}}, "no such name"),
        ({"metadata": {"count": "${count}"}}, "only strings go into a string"),
        ([{"a": ["${maybe}"]}], "needs a default"),
    ],
)
def test_a_placeholder_that_is_not_as_it_should_be_is_named_with_its_place(template: Any, says: str) -> None:
    declared = DECLARED | {"maybe": Placeholder(path="/maybe", required=False)}
    with pytest.raises(InvalidRequest) as refused:
        check_mentions(template, declared)
    assert says in refused.value.message and refused.value.param is not None
    assert refused.value.param.startswith("template")


def test_a_pattern_takes_time_in_proportion_to_the_text() -> None:
    """An engine that backtracks would not be back before the sun is cold."""
    declared = {"word": Placeholder(path="/word", pattern="(a+)+b")}
    with pytest.raises(InvalidRequest, match="does not match"):
        read_values(declared, {"word": "a" * 100_000})


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", {"a/b": {"m~n": [10, {"": 1}]}, "": 2, "0": 3}),
        ("/a~1b/m~0n/0", 10),
        ("/a~1b/m~0n/1/", 1),
        ("/", 2),
        ("/0", 3),
        ("/a~1b/m~0n/2", MISSING),
        ("/a~1b/m~0n/-", MISSING),
        ("/a~1b/m~0n/00", MISSING),
        ("/a~1b/m~0n/0/0", MISSING),
        ("/a", MISSING),
    ],
)
def test_pointers_are_read_as_rfc_6901_says(pointer: str, found: Any) -> None:
    result = look_up({"a/b": {"m~n": [10, {"": 1}]}, "": 2, "0": 3}, pointer)
    assert result is MISSING if found is MISSING else result == found


CONTRADICTORY: list[tuple[dict[str, Any], str]] = [
    ({"path": "commit"}, "path"),
    ({"path": "/a", "pattern": "("}, "not a regular expression"),
    ({"path": "/a", "min": 1}, "min and max are for numbers"),
    ({"path": "/a", "type": "integer", "default": 1.5}, "default is a number"),
    ({"path": "/a", "default": "x", "required": True}, "drop one"),
    ({"path": "/a", "default": "main", "pattern": "[0-9]+"}, "does not match"),
    ({"path": "/a", "eval": "1+1"}, "unknown field"),
]


def test_a_placeholder_that_contradicts_itself_is_refused(member_api: TestClient, trigger_body: dict[str, Any]) -> None:
    for placeholder, says in CONTRADICTORY:
        body = {**trigger_body, "placeholders": {**trigger_body["placeholders"], "commit": placeholder}}
        answer = member_api.post("/v1/triggers", json=body)
        assert answer.status_code == 422 and says in answer.json()["detail"], answer.text
        assert answer.json()["param"].startswith("placeholders.commit")


FAULTY: list[tuple[dict[str, Any], str]] = [
    ({"modle": "tiny"}, "template.modle"),
    ({"method": "wander"}, "template.method"),
    ({"model": "oak"}, "template.model"),
    ({"metadata": {"commit": "${branch}"}}, "template.metadata.commit"),
]


def test_a_fault_in_a_template_is_named_when_it_is_saved(member_api: TestClient, trigger_body: dict[str, Any]) -> None:
    kept = make_trigger(member_api, trigger_body, name="kept")
    for changes, param in FAULTY:
        template = trigger_body["template"] | changes
        for answer in (
            member_api.post("/v1/triggers", json=trigger_body | {"template": template}),
            member_api.patch(kept.path, json={"template": template}),
        ):
            assert (answer.status_code, answer.json()["param"]) == (422, param), answer.text
    assert member_api.get(kept.path).json()["template"] == trigger_body["template"]
