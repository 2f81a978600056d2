"""The load run, small: jobs from several clients on real workers, undisturbed and disturbed."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench.load import Findings, measure, report

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
]


def run(*, jobs: int, rate: float, chaos: bool = False, pooled: bool = False) -> Findings:
    with TemporaryDirectory(prefix="secateur-test-") as name:
        return measure(
            Path(name), jobs=jobs, clients=6, workers=2, teams=3, rate=rate, alone=2, chaos=chaos, pooled=pooled
        )


@pytest.mark.parametrize(
    "pooled", [pytest.param(False, id="", marks=pytest.mark.nightly), pytest.param(True, id="through PgBouncer")]
)
def test_no_job_is_lost_none_runs_twice_and_teams_take_turns(pooled: bool) -> None:
    if pooled and shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed")
    found = run(jobs=48, rate=0, pooled=pooled)
    assert found.ended == {"succeeded": 48} and len(set(found.submitted)) == 48
    assert found.attempts == {1: 48}, "an attempt was lost"
    assert set(found.runs.values()) == {1} and found.runs.total() == 48 + 3, "jobs sent alone included"
    assert found.unfair is not None and found.unfair < 0.1
    assert len(found.submit) == 48 and len(found.free_claim) == 2
    assert "lost: 0" in report(found)


def test_all_jobs_end_whatever_is_flushed_killed_and_restarted() -> None:
    found = run(jobs=48, rate=3, chaos=True)
    assert found.ended == {"succeeded": 48} and len(set(found.submitted)) == 48
    assert found.lost == 0 and found.run_twice == 0
    done = " ".join(found.events)
    assert all(each in done for each in ("Redis flushed", "Redis stopped", "PostgreSQL stopped", "worker killed")), done
    assert done.count("killed between commit and hint") >= 2
