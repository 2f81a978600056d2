"""Processes of the fleet: started again whenever they end, unless they were stopped."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos.processes import Part, children
from bench.parts import until

PARENT = "import os, time; print(os.environ.get('SAID', 'nothing'), flush=True); os.fork(); time.sleep(600)"


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    kept = Part("sleeper", [sys.executable, "-I", "-S", "-c", PARENT], {}, tmp_path / "log")
    kept.start()
    yield kept
    kept.close()


def test_what_was_killed_comes_again_with_nothing_left_of_it(part: Part) -> None:
    assert part.pid is not None
    first = part.pid
    until(lambda: children(first), 20)
    [child] = children(first)
    part.kill()
    assert part.pid not in (None, first)
    until(lambda: not Path(f"/proc/{child}").exists(), 20)


def test_what_was_stopped_stays_away_until_it_is_started(part: Part, tmp_path: Path) -> None:
    until(lambda: (tmp_path / "log").read_text(), 20)
    part.stop(10)
    assert part.pid is None
    part.variables = {"SAID": "something"}
    part.start()
    assert part.pid is not None
    until(lambda: (tmp_path / "log").read_text().split() == ["nothing", "something"], 20)


def test_who_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    kept = Part("deaf", [sys.executable, "-I", "-c", deaf], {}, tmp_path / "log")
    kept.start()
    until(lambda: "deaf" in (tmp_path / "log").read_text(), 20)
    pid = kept.pid
    kept.stop(0.1)
    assert pid is not None and kept.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    kept.close()
