"""The load run, small: jobs from several clients on real workers, undisturbed and disturbed."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import pytest

from bench.load import measure, report
from bench.load_fleet import Fleet
from tests.worker.forked_parts import fork_part
from worker.processes import ChildProcess

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
]


class ForkedFleet(Fleet):
    """A fleet whose own processes start without loading their libraries: seven do, and again after they were killed."""

    def launch(self, command: list[str], name: str, log: IO[bytes], environment: Mapping[str, str]) -> ChildProcess:
        if sys.executable not in command:
            return super().launch(command, name, log, environment)
        own = command[command.index(sys.executable) :]
        return fork_part(own, name=name, log=log, environment=environment)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="directly", marks=pytest.mark.nightly),
        pytest.param(True, id="through PgBouncer"),
    ],
)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """One of two workers for all tests."""
    pooled: bool = request.param
    if pooled and shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed")
    with TemporaryDirectory(prefix="secateur-test-") as folder, ForkedFleet(Path(folder), 2, pooled=pooled) as started:
        yield started


@pytest.fixture(scope="module")
def keys(fleet: Fleet) -> list[str]:
    """The load of six clients of three teams."""
    return fleet.keys(3, 6)


def test_no_job_is_lost_none_runs_twice_and_teams_take_turns(fleet: Fleet, keys: list[str]) -> None:
    found = measure(fleet, keys, jobs=48, rate=0, alone=2, chaos=False)
    assert found.ended == {"succeeded": 48} and len(set(found.submitted)) == 48
    assert found.attempts == {1: 48}, "an attempt was lost"
    assert set(found.runs.values()) == {1} and found.runs.total() == 48 + 3, "jobs sent alone included"
    assert found.unfair is not None and found.unfair < 0.1
    assert len(found.submit) == 48 and len(found.free_claim) == 2
    assert "lost: 0" in report(found)


def test_all_jobs_end_whatever_is_flushed_killed_and_restarted(fleet: Fleet, keys: list[str]) -> None:
    found = measure(fleet, keys, jobs=30, rate=2, alone=0, chaos=True)
    assert found.ended == {"succeeded": 30} and len(set(found.submitted)) == 30
    assert found.lost == 0 and found.run_twice == 0
    done = " ".join(found.events)
    assert all(each in done for each in ("Redis flushed", "Redis stopped", "PostgreSQL stopped", "worker killed")), done
    assert done.count("killed between commit and hint") >= 2
