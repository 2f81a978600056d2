"""Configs that try to have code chosen: nothing they name is fetched, imported, opened or run, whatever they say."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

CASES = int(os.environ.get("CONFIG_FUZZ_CASES", "60"))
"""A case takes some milliseconds; a night has time for many more."""


def test_no_config_has_anything_fetched_imported_opened_or_run(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.config_opener", str(CASES), str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    cases = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(cases) == CASES and not [case for case in cases if case["done"]]
    ends = Counter(case["how"].partition(" ")[0] for case in cases)
    assert ends["ok"] > CASES // 20 and ends["refused"] > CASES // 3, ends
