"""Discoveries of a worker: a thread of its parent process starts a child to examine undeclared architectures.

Discoveries run beside the worker's jobs, one at a time. The secluded child opens only a config and the names, dtypes
and shapes of tensors.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import structlog
from pydantic import BaseModel, ValidationError, model_validator
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.describe import describe_discovered
from core.engine.architectures.description import ModelDescription
from core.service.discoveries import queue
from core.service.discoveries.queue import ClaimedDiscovery
from core.service.discoveries.versions import note_version
from core.settings import Settings
from secateur_wire.errors import DiscoveryFailed, SecateurError
from secateur_wire.problems import StoredProblem
from worker.supervisor.request_taker import RequestTaker
from worker.supervisor.secluded_child import ask_child

DISCOVERER: tuple[str, ...] = (sys.executable, "-m", "core.pipeline.stages.discover")

_NOTED_SECONDS = 60.0
_MOST_MESSAGE = 2000

logger = structlog.get_logger()


class _Reported(BaseModel):
    code: str
    message: str


class _Answer(BaseModel):
    """Answer of the child: its findings, or the reason why it found nothing."""

    architecture: Architecture | None = None
    error: _Reported | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "_Answer":
        if (self.architecture is None) == (self.error is None):
            raise ValueError("one of architecture and error is needed")
        return self


class _ReportedError(Exception):
    """Error that the child reported itself."""

    def __init__(self, reported: _Reported) -> None:
        super().__init__(reported.message)
        self.reported = reported


class Discoverer(RequestTaker[ClaimedDiscovery]):
    """Thread that runs discoveries, one at a time, once it is started."""

    foreseen = (SecateurError, _ReportedError)
    unforeseen = DiscoveryFailed

    def __init__(self, worker_id: str, settings: Settings, *, command: Sequence[str] = DISCOVERER) -> None:
        super().__init__("discoverer", settings, settings.discovery_poll_seconds)
        self._worker_id = worker_id
        self._command = command
        self._version = version("transformers")
        self._noted_at: float | None = None

    def claim(self, session: Session) -> ClaimedDiscovery | None:
        settings = self._settings
        if self._noted_at is None or time.monotonic() > self._noted_at + _NOTED_SECONDS:
            note_version(session, settings.worker_queue, self._version)
            self._noted_at = time.monotonic()
        return queue.claim(
            session,
            worker_id=self._worker_id,
            transformers_version=self._version,
            lease_seconds=settings.lease_seconds,
            most_attempts=settings.discovery_attempts,
        )

    def facts(self, claimed: ClaimedDiscovery) -> Mapping[str, str]:
        return {"discovery": claimed.id, "worker": self._worker_id}

    def renew(self, session: Session, claimed: ClaimedDiscovery) -> bool:
        return queue.renew(session, claimed, self._settings.lease_seconds)

    def release(self, session: Session, claimed: ClaimedDiscovery) -> None:
        queue.release(session, claimed)

    def fail(self, session: Session, claimed: ClaimedDiscovery, error: Exception) -> None:
        problem = _problem(error)
        queue.fail(session, claimed, problem, most_attempts=self._settings.discovery_attempts)
        logger.info("nothing discovered", code=problem["code"], reason=problem["message"][:300])

    def fulfil(self, sessions: sessionmaker[Session], claimed: ClaimedDiscovery, on_wait: Callable[[], None]) -> None:
        began = time.monotonic()
        description = self._discover(claimed, on_wait)
        with transaction(sessions) as session:
            queue.succeed(session, claimed, description)
        logger.info("discovered", architecture=description.architecture, seconds=round(time.monotonic() - began, 1))

    def _discover(self, claimed: ClaimedDiscovery, on_wait: Callable[[], None]) -> ModelDescription:
        """Have a child examine the model; raises the error that it reports, or DiscoveryFailed without an answer."""
        question = json.dumps({"config": claimed.model.config, "tensors": claimed.model.tensors})
        answer = ask_child(self._command, question, name="discovery", settings=self._settings, on_wait=on_wait)
        try:
            answered = _Answer.model_validate_json(answer)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise DiscoveryFailed(f"what was found is no architecture: {first['msg']}") from error
        if answered.architecture is None:
            assert answered.error is not None
            raise _ReportedError(answered.error)
        return describe_discovered(claimed.model, answered.architecture)


def _problem(error: Exception) -> StoredProblem:
    if isinstance(error, _ReportedError):
        code, message = error.reported.code[:100], error.reported.message[:_MOST_MESSAGE]
        return {"code": code, "message": message, "param": "model", "retryable": False}
    assert isinstance(error, SecateurError)
    return error.problem()
