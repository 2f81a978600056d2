"""The table of families and methods: its rows are of the registry, and golden's bodies are those of its rows."""

import json

import pytest

from bench.architectures.outcomes import CAPABILITIES
from core.methods.registry import get_method, parse_parameters
from tests.families import CLASSIFIERS, DEEP, LANGUAGE_MODELS, ROWS, Row
from tests.golden.bodies import BODIES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row.way))
def test_a_row_is_a_way_of_the_registry_on_families_of_the_table(row: Row) -> None:
    pattern = "n:m" if row.pattern == "2:4" else row.pattern
    assert pattern is None or pattern in get_method(row.method).patterns
    parse_parameters(row.method, dict(row.parameters), row.pattern)
    assert {*row.reload} <= {*LANGUAGE_MODELS}
    assert {*row.simulator, *(golden.model for golden in row.golden.values())} <= {*LANGUAGE_MODELS, *CLASSIFIERS, DEEP}
    assert row.reload or row.simulator or row.capabilities or row.golden, "no harness reads it"


def test_every_capability_has_one_way() -> None:
    assert sorted(each for row in ROWS for each in row.capabilities) == sorted({*CAPABILITIES} - {"opens"})


def test_the_bodies_that_are_kept_are_those_of_the_table() -> None:
    """Their parameters are spelled out, and stay where a default changes."""
    kept = json.loads(BODIES.read_text("utf-8"))
    jobs = {name: (golden.model, row.method) for row in ROWS for name, golden in row.golden.items()}
    assert {name: (body["model"], body["method"]) for name, body in kept.items()} == jobs
