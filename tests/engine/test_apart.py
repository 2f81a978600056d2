"""A failure in a process of its own fails the test."""

import json
import os

import pytest

from tests.engine.apart import Apart


def test_what_a_function_raises_there_is_shown_here(apart: type[Apart]) -> None:
    apart(json.loads, "{}").wait()
    with pytest.raises(AssertionError, match="JSONDecodeError"):
        apart(json.loads, "{").wait()


def test_a_process_that_ends_in_the_middle_is_noticed(apart: type[Apart]) -> None:
    with pytest.raises(AssertionError, match="in the middle"):
        apart(os._exit, 0).wait()
