"""A sweep's life: points started under the cap, ended, cancelled, resumed, kept waiting; nothing lost or doubled."""

import os
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from core.database import transaction
from core.service.jobs import queue
from core.service.sweeps.tables import SweepPointRow
from core.service.teams.tables import TeamRow
from secateur_wire.errors import Conflict
from tests.sweeps.conftest import Sweeps
from tests.worker.conftest import eventually
from tests.worker.forked_parts import fork_part


def statuses(sweeps: Sweeps) -> Counter[str]:
    return Counter(job.status for job in sweeps.jobs())


def test_the_first_job_measures_the_dense_model_and_the_others_wait_for_it(
    sweeps: Sweeps, grid_body: dict[str, Any]
) -> None:
    sweep_id = sweeps.submit(grid_body)
    assert sweeps.advance() == 1 and sweeps.advance() == 0
    (first,) = sweeps.work()
    assert first.baseline is not None and not first.baseline.figures
    assert sweeps.advance() == 2, "as many as may run at a time, now that the dense model is known"
    others = sweeps.work()
    assert {figure.job for claim in others if claim.baseline for figure in claim.baseline.figures} == {first.job_id}
    sweep = sweeps.finish(sweep_id)
    assert sweep.status == "succeeded" and sweep.points.succeeded == 6
    assert [dense.job for dense in sweep.dense] == [first.job_id]
    assert len(sweeps.jobs()) == len(sweeps.hints) == 6
    assert all(job.labels == {"commit": "abc", "sweep": sweep_id} for job in sweeps.jobs())


def test_no_more_run_than_may(sweeps: Sweeps, grid_body: dict[str, Any]) -> None:
    sweeps.submit(grid_body | {"max_concurrent": 3})
    sweeps.advance()
    sweeps.work()
    assert sweeps.advance() == 3 and sweeps.advance() == 0
    claim = sweeps.claim()
    assert claim is not None and sweeps.advance() == 0
    sweeps.end(claim, 1.0)
    assert sweeps.advance() == 1
    assert statuses(sweeps) == {"succeeded": 2, "queued": 3}


def test_a_sweep_of_which_nothing_succeeds_has_failed_and_can_be_tried_again(
    sweeps: Sweeps, grid_body: dict[str, Any]
) -> None:
    sweep_id = sweeps.submit(grid_body)
    sweep = sweeps.finish(sweep_id, lambda body: None)
    assert sweep.status == "failed" and sweep.error is not None and sweep.error.code == "sweep_failed"
    sweeps.resume(sweep_id)
    assert sweeps.resume(sweep_id).status == "running", "idempotent"
    sweep = sweeps.finish(sweep_id)
    assert sweep.status == "succeeded" and sweep.error is None
    assert len(sweeps.jobs()) == 6, "its jobs were tried again, none was added"
    assert {job.attempt for job in sweeps.jobs()} == {2}
    with pytest.raises(Conflict, match="succeeded"):
        sweeps.resume(sweep_id)


def test_cancelled_as_one_and_resumed_as_one(sweeps: Sweeps, grid_body: dict[str, Any]) -> None:
    sweep_id = sweeps.submit(grid_body)
    sweeps.advance()
    sweeps.work()
    sweeps.advance()
    claim = sweeps.claim()
    assert claim is not None
    assert sweeps.cancel(sweep_id).status == "cancelled"
    assert sweeps.cancel(sweep_id).status == "cancelled", "idempotent"
    assert statuses(sweeps) == {"succeeded": 1, "cancelling": 1, "cancelled": 1}
    assert sweeps.advance() == 0
    assert sweeps.get(sweep_id).points.not_run == 3
    sweeps.resume(sweep_id)
    assert sweeps.advance() == 1, "one is still being cancelled, and counts"
    with transaction(sweeps.sessions) as session:
        queue.finish_cancelled(session, claim.job_id, claim.attempt)
    sweep = sweeps.finish(sweep_id)
    assert sweep.status == "succeeded" and sweep.points.succeeded == 6 and len(sweeps.jobs()) == 6
    with pytest.raises(Conflict, match="nothing to cancel"):
        sweeps.cancel(sweep_id)


def test_a_full_queue_pauses_and_does_not_fail(sweeps: Sweeps, grid_body: dict[str, Any]) -> None:
    with transaction(sweeps.sessions) as session:
        session.execute(update(TeamRow).values(max_queued=1))
    sweep_id = sweeps.submit(grid_body | {"max_concurrent": 4})
    sweeps.advance()
    sweeps.work()
    assert sweeps.advance() == 1
    paused = sweeps.get(sweep_id)
    assert paused.status == "running" and "1 waiting jobs" in (paused.waiting_for or "")
    sweep = sweeps.finish(sweep_id)
    assert sweep.status == "succeeded" and sweep.points.succeeded == 6 and sweep.waiting_for is None


def test_a_text_that_went_away_ends_the_points_that_needed_it(sweeps: Sweeps, grid_body: dict[str, Any]) -> None:
    sweep_id = sweeps.submit(grid_body)
    sweeps.advance()
    sweeps.work()
    with transaction(sweeps.sessions) as session:
        point = session.get_one(SweepPointRow, (sweep_id, 4))
        point.point_values = point.point_values | {"calibration.dataset": "gone"}
    sweep = sweeps.finish(sweep_id)
    assert sweep.status == "succeeded" and (sweep.points.failed, sweep.points.succeeded) == (1, 5)
    failed = sweeps.results(sweep_id).points[4]
    assert failed.status == "failed" and failed.error is not None and failed.error.code == "unknown_dataset"


def test_two_that_advance_at_once_double_nothing(sweeps: Sweeps, grid_body: dict[str, Any]) -> None:
    grid = {"method": ["magnitude", "wanda"], "sparsity": [(10 + place) / 50 for place in range(12)]}
    sweep_id = sweeps.submit(grid_body | {"grid": grid, "max_concurrent": 24})
    sweeps.advance()
    sweeps.work()
    start = threading.Barrier(4)

    def advance(_: int) -> int:
        start.wait()
        return sum(sweeps.advance() for _ in range(5))

    with ThreadPoolExecutor(4) as threads:
        queued = sum(threads.map(advance, range(4)))
    assert queued == 23 and len(sweeps.jobs()) == 24 == len(set(sweeps.hints))
    assert sweeps.finish(sweep_id).points.succeeded == 24


def test_a_dispatcher_killed_in_the_middle_loses_and_doubles_nothing(
    sweeps: Sweeps, grid_body: dict[str, Any], tmp_path: Path
) -> None:
    grid = {"method": ["magnitude", "wanda"], "sparsity": [(10 + place) / 100 for place in range(20)]}
    sweep_id = sweeps.submit(grid_body | {"grid": grid, "max_concurrent": 40})
    sweeps.advance()
    sweeps.work()
    for wanted in (4, 12):  # killed twice, each time while it queues jobs
        command = (sys.executable, "-m", "tests.sweeps.advancing", sweeps.settings.model_dump_json())
        with open(tmp_path / "log", "ab") as log:
            child = fork_part(command, name="advancing", log=log, environment=os.environ)
        try:
            eventually(lambda wanted=wanted: len(sweeps.jobs()) >= wanted)
        finally:
            child.end()
        assert len(sweeps.jobs()) < 40
    sweep = sweeps.finish(sweep_id)
    assert sweep.status == "succeeded" and sweep.points.succeeded == 40
    jobs = sweeps.jobs()
    with transaction(sweeps.sessions) as session:
        linked = session.scalars(select(SweepPointRow.job_id)).all()
    assert sorted(job.id for job in jobs) == sorted(str(each) for each in linked)
    assert len({(job.method, job.body["sparsity"]) for job in jobs}) == 40
