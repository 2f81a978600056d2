"""A worker's traces of passes: a thread of its parent process has a child run the engine without values, for estimates.

It does so beside whatever job the worker has, one at a time. The child, which is secluded, is told a config, the names,
dtypes and shapes of tensors, and what the pass is.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.architectures.description import read_config, weight_files
from core.engine.checkpoints.safetensors_header import read_header
from core.errors import DiscoveryFailed, SecateurError
from core.pipeline.messages import PassAnswer, PassQuestion
from core.service.jobs.pass_traces import (
    ClaimedPassTrace,
    claim_pass_trace,
    keep_pass_trace,
    put_off_pass_trace,
    release_pass_trace,
)
from core.service.sources.header_only_folder import Read, write_header_only_folder
from core.service.sources.hub import Hub
from core.service.sources.hub_access import open_access
from core.service.sources.hub_tokens import find_access
from core.service.sources.references import FileReference, FolderModel, StoredModel
from core.settings import Settings
from core.storage import Store
from secateur_wire.problems import StoredProblem
from worker.supervisor.request_taker import RequestTaker
from worker.supervisor.secluded_child import ask_child
from worker.supervisor.tracer import MORE_SECONDS, TRACER

logger = structlog.get_logger()


class _Stopped(Exception):
    """Signal that the worker ends."""


class PassTracer(RequestTaker[ClaimedPassTrace]):
    """Thread that traces passes over language models, one at a time, once it is started."""

    def __init__(self, store: Store, settings: Settings, *, command: Sequence[str] = TRACER) -> None:
        super().__init__("pass-tracer", settings, settings.discovery_poll_seconds)
        self._store = store
        self._command = command

    def claim(self, session: Session) -> ClaimedPassTrace | None:
        return claim_pass_trace(session, lease_seconds=self._settings.discovery_seconds + MORE_SECONDS)

    def see_through(self, sessions: sessionmaker[Session], claimed: ClaimedPassTrace) -> None:
        began = time.monotonic()
        with structlog.contextvars.bound_contextvars(model=claimed.model.name, method=claimed.traced.method):
            try:
                peak_bytes = self._trace(sessions, claimed)
            except _Stopped:
                with transaction(sessions) as session:
                    release_pass_trace(session, claimed)
                return
            except (SecateurError, OSError) as error:
                with transaction(sessions) as session:
                    put_off_pass_trace(session, claimed)
                logger.info("not traced", attempt=claimed.attempt, reason=f"{type(error).__name__}: {error}"[:300])
                return
            with transaction(sessions) as session:
                keep_pass_trace(session, claimed, peak_bytes)
            logger.info("traced", bytes=peak_bytes, seconds=round(time.monotonic() - began, 1))

    def fail(self, session: Session, claimed: ClaimedPassTrace, problem: StoredProblem) -> None:
        """Put the trace off: nobody waits for it, and estimates do without."""
        put_off_pass_trace(session, claimed)

    def _trace(self, sessions: sessionmaker[Session], claimed: ClaimedPassTrace) -> int:
        """Have a child run the pass; raises DiscoveryFailed, and what makes a folder unusable."""
        with TemporaryDirectory(prefix="secateur-headers-") as temporary:
            question = self._question(self._folder(sessions, claimed, Path(temporary)), claimed)
        answer = ask_child(
            self._command,
            question.model_dump_json(),
            name="trace",
            settings=self._settings,
            on_wait=self._stop_if_ended,
        )
        try:
            answered = PassAnswer.model_validate_json(answer)
        except ValidationError as error:
            raise DiscoveryFailed("the child's answer is no trace") from error
        if answered.peak_bytes is None:
            raise DiscoveryFailed(answered.error or "the child did not say why")
        return answered.peak_bytes

    def _stop_if_ended(self) -> None:
        if self._ended.is_set():
            raise _Stopped

    def _question(self, folder: Path, claimed: ClaimedPassTrace) -> PassQuestion:
        model = claimed.model
        is_artifact = isinstance(model, StoredModel) and model.is_artifact
        return PassQuestion(
            config=read_config(folder, own_artifact=is_artifact, discovered=model.discovered),
            tensors={
                name: (entry.dtype, entry.shape)
                for file in weight_files(folder)
                for name, entry in read_header(file).items()
            },
            own_artifact=is_artifact,
            discovered=model.discovered,
            traced=claimed.traced,
        )

    def _folder(self, sessions: sessionmaker[Session], claimed: ClaimedPassTrace, temporary: Path) -> Path:
        """Return a folder with the model's config and headers; raises what the store and the hub do."""
        model = claimed.model
        if isinstance(model, FolderModel):
            return model.path
        read: Read
        if isinstance(model, StoredModel):
            prefix = model.prefix

            def read(file: FileReference, start: int, end: int) -> bytes:
                return b"".join(self._store.open_range(prefix, file.path, start, end))
        else:
            with transaction(sessions) as session:
                access = find_access(session, claimed.team_id, self._settings)
            hub = Hub(self._settings).with_credential(open_access(access, self._settings))
            repository, revision = model.repository, model.revision

            def read(file: FileReference, start: int, end: int) -> bytes:
                return b"".join(hub.open_range("model", repository, revision, file.path, start, end))

        write_header_only_folder(temporary, model.files, read)
        return temporary
