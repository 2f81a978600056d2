"""Threads of a worker's parent process that answer questions beside jobs, one at a time, by a secluded child."""

import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Generic

import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.questions.queue import Answer, ClaimedQuestion, Question, QuestionKind, claim, keep, put_off, release
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import DiscoveryFailed, SecateurError
from worker.supervisor.request_taker import RequestTaker
from worker.supervisor.secluded_child import ask_child

_MORE_SECONDS = 600.0
"""Seconds beside the child's own after which a question is another worker's: files are copied from the store first."""

logger = structlog.get_logger()


class QuestionTaker(RequestTaker[ClaimedQuestion[Question]], Generic[Question, Answer]):
    """Thread that answers questions of one kind, once it is started; a child finds the answer.

    A question that fails is put off: nobody waits for it.
    """

    foreseen = (SecateurError, OSError)
    kind: QuestionKind[Question, Answer]
    seconds: ClassVar[float] = 600
    """Longest that a child may take for an answer."""

    def __init__(self, store: Store, settings: Settings, *, command: Sequence[str] | None = None) -> None:
        super().__init__(f"answers-{self.kind.name}", settings, settings.discovery_poll_seconds)
        self._store = store
        self._command = command or (sys.executable, "-m", "core.pipeline.stages.questions", self.kind.name)

    @property
    def memory_bytes(self) -> int:
        """Return the address space that a child may take."""
        return self._settings.discovery_memory_bytes

    @abstractmethod
    def ask(
        self, sessions: sessionmaker[Session], claimed: ClaimedQuestion[Question], temporary: Path
    ) -> tuple[BaseModel, int]:
        """Return the question to the child, and the bytes of files that it may write.

        `temporary` is an empty folder that stays until the child has ended. Raises what the store and the hub do, and
        what makes a folder unusable.
        """

    def check(self, answer: Answer) -> None:
        """Raise DiscoveryFailed where an answer is none."""

    def store(self, session: Session, claimed: ClaimedQuestion[Question], answer: Answer) -> None:
        """Store an answer where more than the question's row has it."""

    def claim(self, session: Session) -> ClaimedQuestion[Question] | None:
        return claim(session, self.kind, lease_seconds=self.seconds + _MORE_SECONDS)

    def release(self, session: Session, claimed: ClaimedQuestion[Question]) -> None:
        release(session, claimed)

    def fulfil(
        self, sessions: sessionmaker[Session], claimed: ClaimedQuestion[Question], on_wait: Callable[[], None]
    ) -> None:
        began = time.monotonic()
        with TemporaryDirectory(prefix=f"secateur-{self.kind.name}-") as temporary:
            question, file_bytes = self.ask(sessions, claimed, Path(temporary))
            text = ask_child(
                self._command,
                question.model_dump_json(),
                name=self.kind.name,
                settings=self._settings,
                on_wait=on_wait,
                seconds=self.seconds,
                memory_bytes=self.memory_bytes,
                file_bytes=file_bytes,
            )
        try:
            answer = self.kind.answer.model_validate_json(text)
        except ValidationError as error:
            raise DiscoveryFailed(f"the child's answer is none to a question of the kind {self.kind.name}") from error
        self.check(answer)
        with transaction(sessions) as session:
            keep(session, claimed, answer)
            self.store(session, claimed, answer)
        logger.info("answered", kind=self.kind.name, seconds=round(time.monotonic() - began, 1))

    def fail(self, session: Session, claimed: ClaimedQuestion[Any], error: Exception) -> None:
        """Put the question off."""
        put_off(session, claimed)
        reason = f"{type(error).__name__}: {error}"[:300]
        logger.info("not answered", kind=self.kind.name, attempt=claimed.attempt, reason=reason)
