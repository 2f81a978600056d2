"""The process of a cell ends with the bench that started it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.cells import Program, run


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
