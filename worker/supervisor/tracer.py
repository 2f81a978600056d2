"""A worker's traces: a thread of its parent process has a child trace image classifiers that were registered.

It does so beside whatever job the worker has, one at a time. The child, which is secluded, is told a config, the names,
dtypes and shapes of tensors, and the size of images.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.architectures.classifier_passes import ClassifierPasses, TraceAnswer, TraceQuestion
from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import read_config, stored_tensors
from core.errors import DiscoveryFailed, SecateurError
from core.service.registry.traces import ClaimedTrace, claim_trace, keep_trace, put_off_trace, release_trace
from core.service.sources.header_only_folder import write_header_only_folder
from core.service.sources.references import FileReference
from core.settings import Settings
from core.storage import Store
from secateur_wire.problems import StoredProblem
from worker.supervisor.request_taker import RequestStopped, RequestTaker
from worker.supervisor.secluded_child import ask_child

TRACER: tuple[str, ...] = (sys.executable, "-m", "core.pipeline.stages.trace")

MORE_SECONDS = 60.0
"""Seconds beside the child's own after which a trace is another worker's."""

logger = structlog.get_logger()


class Tracer(RequestTaker[ClaimedTrace]):
    """Thread that traces classifiers, one at a time, once it is started."""

    def __init__(self, store: Store, settings: Settings, *, command: Sequence[str] = TRACER) -> None:
        super().__init__("tracer", settings, settings.discovery_poll_seconds)
        self._store = store
        self._command = command

    def claim(self, session: Session) -> ClaimedTrace | None:
        return claim_trace(session, lease_seconds=self._settings.discovery_seconds + MORE_SECONDS)

    def see_through(self, sessions: sessionmaker[Session], claimed: ClaimedTrace) -> None:
        began = time.monotonic()
        with structlog.contextvars.bound_contextvars(model=claimed.model_id):
            try:
                passes = self._trace(claimed)
            except RequestStopped:
                with transaction(sessions) as session:
                    release_trace(session, claimed)
                return
            except (SecateurError, OSError) as error:
                with transaction(sessions) as session:
                    put_off_trace(session, claimed)
                logger.info("not traced", attempt=claimed.attempt, reason=f"{type(error).__name__}: {error}"[:300])
                return
            with transaction(sessions) as session:
                keep_trace(session, claimed, passes)
            logger.info("traced", seconds=round(time.monotonic() - began, 1))

    def fail(self, session: Session, claimed: ClaimedTrace, problem: StoredProblem) -> None:
        """Put the trace off: nobody waits for it, and estimates do without."""
        put_off_trace(session, claimed)

    def _trace(self, claimed: ClaimedTrace) -> ClassifierPasses:
        """Have a child trace the model; raises DiscoveryFailed, and what makes a folder unusable."""
        with TemporaryDirectory(prefix="secateur-headers-") as temporary:
            question = _question(self._folder(claimed, Path(temporary)))
        answer = ask_child(
            self._command,
            question.model_dump_json(),
            name="trace",
            settings=self._settings,
            on_wait=self._stop_if_ended,
        )
        try:
            answered = TraceAnswer.model_validate_json(answer)
        except ValidationError as error:
            raise DiscoveryFailed("the child's answer is no trace") from error
        if answered.passes is None:
            raise DiscoveryFailed(answered.error or "the child did not say why")
        return answered.passes

    def _stop_if_ended(self) -> None:
        if self._ended.is_set():
            raise RequestStopped

    def _folder(self, claimed: ClaimedTrace, temporary: Path) -> Path:
        """Return a folder with the model's config, headers and preprocessing."""
        if claimed.path is not None:
            return Path(claimed.path)
        prefix = claimed.prefix
        assert prefix is not None

        def read(file: FileReference, start: int, end: int) -> bytes:
            return b"".join(self._store.open_range(prefix, file.path, start, end))

        write_header_only_folder(temporary, claimed.files, read)
        return temporary


def _question(folder: Path) -> TraceQuestion:
    from core.engine.datasets.preprocessing import image_shape_of  # loads NumPy and Pillow

    description = describe_folder(folder).classifier
    config = read_config(folder)
    return TraceQuestion(
        config=config,
        tensors={name: (entry.dtype, entry.shape) for name, entry in stored_tensors(folder, None).items()},
        image_shape=image_shape_of(folder, config, description.image),
    )
