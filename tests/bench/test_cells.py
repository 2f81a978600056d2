"""Cells are recalled, run, told of and kept."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import cells
from bench.cells import Cell, CellFailed, Runner, recall, remember


def works(name: str) -> dict[str, Any]:
    return {"from": name}


def fails(name: str) -> dict[str, Any]:
    raise CellFailed(f"{name} has no memory")


def is_interrupted(name: str) -> dict[str, Any]:
    raise KeyboardInterrupt


def is_out_of_time(name: str) -> dict[str, Any]:
    raise TimeoutError


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize(
    ("runner", "work", "found", "told"),
    [
        pytest.param(Runner(), works, {"kept": "before", "a": "a", "b": "b"}, "a: done", id="what is missing is run"),
        pytest.param(Runner(runs=False), works, {"kept": "before"}, "", id="one that does not run recalls"),
        pytest.param(Runner(is_fresh=True), works, {"kept": "kept", "a": "a", "b": "b"}, "kept: done", id="all is run"),
        pytest.param(Runner(is_fresh=True, runs=False), works, {"kept": "before"}, "", id="fresh, and does not run"),
        pytest.param(Runner(), fails, {"kept": "before"}, "a: failed: a has no memory", id="failures are left out"),
        pytest.param(Runner(), is_interrupted, {"kept": "before"}, "ended early", id="it is interrupted"),
        pytest.param(Runner(), is_out_of_time, {"kept": "before"}, "ended early", id="a cell has no time left"),
        pytest.param(Runner(deadline=0), works, {"kept": "before"}, "ended early", id="the time is over"),
    ],
)
def test_cells_are_recalled_or_run_and_kept(
    runner: Runner, work: Callable[[str], dict[str, Any]], found: dict[str, str], told: str, at_once: int,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(cells, "CACHE", tmp_path)
    remember("key kept", {"from": "before"})
    runner = replace(runner, failures={})
    asked = {name: Cell(name, f"key {name}", partial(work, name)) for name in ("kept", "a", "b")}
    came = runner.figures(asked, lambda figures: "done", at_once=at_once)
    assert {name: figures["from"] for name, figures in came.items()} == found
    assert list(came) == [name for name in asked if name in found], "in the order that was asked for"
    shown = capsys.readouterr()
    assert told in shown.out + shown.err
    assert {name: each["from"] for name in asked if (each := recall(f"key {name}"))} == {"kept": "before"} | found
    assert set(runner.failures) == ({"a", "b"} if work is fails else set())
    if "ended early" in told:
        assert not runner.runs and runner.figures(asked) == came, "nothing more is run"
