"""Supervisor of one claimed job, from fetch to store; it also writes how the job ended.

The supervisor fetches and stores. The runner, a process for each task without credentials or network, opens, prunes,
measures and verifies. This process never imports torch.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core import telemetry
from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.progress_curves import Curve, progress_curves
from core.service.jobs.queue import Claim
from core.service.jobs.states import TERMINAL
from core.settings import Settings
from core.storage import Store, artifact_prefix, is_disk_full
from secateur_wire.errors import DiskFull, InternalError, SecateurError, TimeLimitExceeded
from secateur_wire.problems import StoredProblem
from secateur_wire.states import JobStatus
from worker.runner.client import RUNNER, Draining
from worker.supervisor.attempt import Attempt, AttemptResult
from worker.supervisor.lease import Lease
from worker.supervisor.recorder import LeaseLost, Recorder
from worker.supervisor.work_folders import WorkFolders

End = JobStatus | Literal["lost"]

logger = structlog.get_logger()


class CancelRequested(Exception):
    """Signal that a user cancelled the job."""


class Supervisor:
    """Runner of jobs, one at a time.

    When `stop` is set, the running job is given back within little more than `drain_seconds`: the block that is being
    pruned may be finished first. `find_failure` returns why the device failed, or None. If an attempt ends in an error
    on a failed device, it does not count, and the job is given back too.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: sessionmaker[Session],
        store: Store,
        *,
        stop: threading.Event,
        runner: Sequence[str] = RUNNER,
        find_failure: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._store = store
        self._stop = stop
        self._runner = runner
        self._find_failure = find_failure

    def run(self, claim: Claim) -> End:
        """Run a claimed job to the end of this attempt; return the job's state, or `lost` if it was taken away.

        No error of the job is raised: every end is written to the queue.
        """
        with (
            structlog.contextvars.bound_contextvars(
                job=claim.job_id, attempt=claim.attempt, request_id=claim.request_id
            ),
            telemetry.span(
                "job.attempt",
                kind="consumer",
                parent=claim.traceparent,
                attributes={
                    "secateur.job": claim.job_id,
                    "secateur.attempt": claim.attempt,
                    "secateur.method": claim.method,
                },
            ) as span,
            Lease(
                self._sessions,
                claim.job_id,
                claim.attempt,
                claim.worker_id,
                lease_seconds=self._settings.lease_seconds,
                renew_seconds=self._settings.lease_renew_seconds,
            ) as lease,
        ):
            logger.info("job started", method=claim.method, model=claim.model.name)
            recorder = Recorder(
                self._sessions, claim.job_id, claim.attempt, lease, claim.estimate, self._past_curves(claim)
            )
            try:
                end = self._attempt(claim, lease, recorder)
            except LeaseLost:
                logger.warning("job lost: its lease is no longer ours")
                return "lost"
            work = WorkFolders(self._settings.work_root)
            if end == "succeeded":
                work.remove(claim.job_id)
            elif end in TERMINAL:
                work.keep_resume_files(claim.job_id)
            if span is not None:
                span.set_attribute("secateur.end", end)
            logger.info("job ended", end=end)
            return end

    def _past_curves(self, claim: Claim) -> Sequence[Curve]:
        """Return the progress curves of jobs like this one; none where the database is away, as they only tell time."""
        if claim.estimate is None:
            return ()
        try:
            with transaction(self._sessions) as session:
                return progress_curves(
                    session,
                    queue=self._settings.worker_queue,
                    method=claim.method,
                    job_id=claim.job_id,
                    formula_seconds=claim.estimate["basis"]["formula"]["seconds"],
                )
        except SQLAlchemyError as error:
            logger.warning("no past jobs are read", error=str(error).partition("\n")[0])
            return ()

    def _attempt(self, claim: Claim, lease: Lease, recorder: Recorder) -> End:
        job = (claim.job_id, claim.attempt)
        try:
            attempt = Attempt(
                claim, self._settings, recorder, self._store, runner=self._runner, on_wait=self._watch(claim, lease)
            )
            result = attempt.run()
        except CancelRequested:
            return recorder.end(lambda session: queue.finish_cancelled(session, *job, stages=recorder.stage_seconds))
        except Draining:
            return self._release(claim, recorder)
        except LeaseLost:
            raise
        except Exception as error:
            problem = _problem(error)
            if (failure := self._find_failure()) is not None:
                logger.warning("the device failed under the job", problem=problem["message"], reason=failure)
                return self._release(claim, recorder)
            return self._fail(claim, recorder, problem)
        if result.missed is not None:
            return self._fail(claim, recorder, result.missed.problem(), result)
        end: JobStatus = recorder.end(
            lambda session: queue.finish_succeeded(
                session,
                *job,
                metrics=result.metrics.document(),
                report=result.report.document(),
                files=result.files,
                stages=recorder.stage_seconds,
                measured=result.measured,
            )
        )
        if end != "succeeded":  # it was cancelled at the last moment
            self._store.delete(artifact_prefix(*job))
        return end

    def _release(self, claim: Claim, recorder: Recorder) -> JobStatus:
        return recorder.end(
            lambda session: queue.release(session, claim.job_id, claim.attempt, stages=recorder.stage_seconds)
        )

    def _fail(
        self, claim: Claim, recorder: Recorder, problem: StoredProblem, result: AttemptResult | None = None
    ) -> JobStatus:
        logger.warning("attempt failed", code=problem["code"], reason=problem["message"][:300])
        return recorder.end(
            lambda session: queue.finish_failed(
                session,
                claim.job_id,
                claim.attempt,
                problem,
                metrics=result.metrics.document() if result else None,
                report=result.report.document() if result else None,
                files=result.files if result else (),
                retry_delay_seconds=self._settings.retry_delay_seconds,
                worker_fresh_seconds=self._settings.worker_fresh_seconds,
                stages=recorder.stage_seconds,
                measured=result.measured if result else None,
            )
        )

    def _watch(self, claim: Claim, lease: Lease) -> Callable[[], None]:
        """Return the check that runs a few times a second during a job; it raises the reason to end the job."""
        requested, own = claim.recipe.time_limit_seconds, self._settings.job_time_limit_seconds
        limit = own if requested is None else min(requested, own)
        whose = "this worker" if limit == own else "the job"
        deadline = time.monotonic() + limit

        def watch() -> None:
            state = lease.state
            if state == "lost":
                raise LeaseLost
            if state == "cancelling":
                raise CancelRequested
            if self._stop.is_set():
                raise Draining(self._settings.drain_seconds)
            if time.monotonic() > deadline:
                raise TimeLimitExceeded(f"The attempt ran longer than {limit:g} s, the limit of {whose}.")

        return watch


def _problem(error: Exception) -> StoredProblem:
    if is_disk_full(error):
        error = DiskFull(str(error))
    if not isinstance(error, SecateurError):
        logger.exception("unexpected end")
        error = InternalError(f"{type(error).__name__}: {error}")
    return error.problem()
