"""Configs that try to have code chosen: nothing they name is fetched, imported, opened or run, whatever they say."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.config_cases import UNGUARDED

CASES = int(os.environ.get("CONFIG_FUZZ_CASES", "60"))
"""A case takes some milliseconds; a night has time for many more."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.config_opener", str(CASES), str(tmp_path_factory.mktemp("configs"))],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_no_config_has_anything_fetched_imported_opened_or_run(outcomes: list[dict[str, Any]]) -> None:
    cases = [outcome for outcome in outcomes if "case" in outcome]
    assert len(cases) == CASES
    assert not [case for case in cases if case["done"]]
    ends = Counter(case["how"].partition(" ")[0] for case in cases)
    assert ends["ok"] > CASES // 20 and ends["refused"] > CASES // 3, ends


def test_what_an_unguarded_folder_does_is_seen(outcomes: list[dict[str, Any]]) -> None:
    unguarded = [outcome for outcome in outcomes if "unguarded" in outcome]
    assert len(unguarded) == len(UNGUARDED)
    assert not [UNGUARDED[each["unguarded"]] for each in unguarded if not each["done"]]
