"""Cells are recalled, run, told of and kept, and the process of a cell ends with the bench that started it."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import cells
from bench.cells import Cell, CellFailed, Program, Runner, recall, remember, run


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, also where a shell started the run in the background and had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_cell_that_takes_longer_than_its_limit_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started = tmp_path / "pid"
    program = Program(("sh", "-c", f"echo $$ > {started}; exec sleep 60"), "code")
    with pytest.raises(TimeoutError):
        run(program, {"threads": 1}, "key", limit_seconds=0.3)
    assert not psutil.pid_exists(int(started.read_text()))


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_bench_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started = tmp_path / "pid"
    script = f"trap '' INT; echo $$ > {started}.part; mv {started}.part {started}; exec sleep 60"

    def interrupt() -> None:
        while not started.exists():
            time.sleep(0.02)
        time.sleep(0.2)  # until it is waited for
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(Program(("sh", "-c", script), "code"), {"threads": 1}, "key")
    assert not psutil.pid_exists(int(started.read_text()))


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


def test_what_other_cells_give_when_all_are_ended_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CACHE", tmp_path)
    bystander = subprocess.Popen(["sleep", "60"])
    runner, is_ended = Runner(), threading.Event()

    def interrupted() -> dict[str, Any]:
        threading.Timer(0.2, is_ended.set).start()
        raise KeyboardInterrupt

    def ends_then() -> dict[str, Any]:
        is_ended.wait()
        return {"from": "an end in the middle"}

    main = threading.current_thread()
    work = lambda: interrupted() if threading.current_thread() is main else ends_then()  # noqa: E731
    assert runner.figures({name: Cell(name, name, work) for name in "ab"}, at_once=2) == {}
    assert recall("a") is None and recall("b") is None
    with pytest.raises(subprocess.TimeoutExpired, match="sleep"):
        bystander.wait(0.2)
    bystander.kill()
    bystander.wait()
