"""A worker's traces: threads of its parent process have a child run the engine without values, for estimates.

They do so beside whatever job the worker has, each one at a time. The child, which is secluded, is told a config, and
the names, dtypes and shapes of tensors. Of image classifiers that were registered it traces passes over images of a
size, of language models the pass of one job.
"""

import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.architectures.classifier_passes import TraceAnswer, TraceQuestion
from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import read_config, stored_tensors, weight_files
from core.engine.checkpoints.safetensors_header import TensorEntry, dtype_bytes, read_header
from core.pipeline.messages import PassAnswer, PassQuestion
from core.service.jobs.pass_traces import (
    ClaimedPassTrace,
    claim_pass_trace,
    keep_pass_trace,
    put_off_pass_trace,
    release_pass_trace,
)
from core.service.registry.traces import ClaimedTrace, claim_trace, keep_trace, put_off_trace, release_trace
from core.service.sources.header_only_folder import write_header_only_folder
from core.service.sources.references import FolderModel, StoredModel
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import DiscoveryFailed, SecateurError
from worker.supervisor.request_taker import RequestTaker
from worker.supervisor.secluded_child import ask_child
from worker.supervisor.small_files import read_from_hub, read_from_store

TRACER: tuple[str, ...] = (sys.executable, "-m", "core.pipeline.stages.trace")

_HEADER_BYTES = 64 * 2**20
"""Room for the header of a file of weights."""
_MORE_SECONDS = 60.0
"""Seconds beside the child's own after which a trace is another worker's."""
_Claimed = TypeVar("_Claimed", ClaimedTrace, ClaimedPassTrace)
_Answer = TypeVar("_Answer", TraceAnswer, PassAnswer)

logger = structlog.get_logger()


class _Tracer(RequestTaker[_Claimed]):
    """Thread that makes traces of one kind, one at a time, once it is started."""

    foreseen = (SecateurError, OSError)

    def __init__(self, name: str, store: Store, settings: Settings, command: Sequence[str]) -> None:
        super().__init__(name, settings, settings.discovery_poll_seconds)
        self._store = store
        self._command = command

    @property
    def _lease_seconds(self) -> float:
        return self.seconds + _MORE_SECONDS

    @property
    def seconds(self) -> float:
        """Return the longest that a child may take for a trace."""
        return self._settings.discovery_seconds

    def fulfil(self, sessions: sessionmaker[Session], claimed: _Claimed, on_wait: Callable[[], None]) -> None:
        began = time.monotonic()
        self.trace(sessions, claimed, on_wait)
        logger.info("traced", seconds=round(time.monotonic() - began, 1))

    def fail(self, session: Session, claimed: _Claimed, error: Exception) -> None:
        """Put the trace off: nobody waits for it, and estimates do without."""
        self.put_off(session, claimed)
        logger.info("not traced", attempt=claimed.attempt, reason=f"{type(error).__name__}: {error}"[:300])

    def ask(
        self, question: TraceQuestion | PassQuestion, answer: type[_Answer], on_wait: Callable[[], None]
    ) -> _Answer:
        """Return the answer of a child; raises DiscoveryFailed where it gives none.

        The child makes a file of the model's size, without content.
        """
        text = ask_child(
            self._command,
            question.model_dump_json(),
            name="trace",
            settings=self._settings,
            on_wait=on_wait,
            seconds=self.seconds,
            file_bytes=_HEADER_BYTES + sum(dtype_bytes(dtype, shape) for dtype, shape in question.tensors.values()),
        )
        try:
            return answer.model_validate_json(text)
        except ValidationError as error:
            raise DiscoveryFailed("the child's answer is no trace") from error

    @abstractmethod
    def trace(self, sessions: sessionmaker[Session], claimed: _Claimed, on_wait: Callable[[], None]) -> None:
        """Have a child make a trace, and keep it; raises DiscoveryFailed, and what makes a folder unusable."""

    @abstractmethod
    def put_off(self, session: Session, claimed: _Claimed) -> None:
        """Let a trace that failed be due again later."""


class Tracer(_Tracer[ClaimedTrace]):
    """Thread that traces registered image classifiers."""

    def __init__(self, store: Store, settings: Settings, *, command: Sequence[str] = TRACER) -> None:
        super().__init__("tracer", store, settings, command)

    def claim(self, session: Session) -> ClaimedTrace | None:
        return claim_trace(session, lease_seconds=self._lease_seconds)

    def facts(self, claimed: ClaimedTrace) -> Mapping[str, str]:
        return {"model": claimed.model_id}

    def put_off(self, session: Session, claimed: ClaimedTrace) -> None:
        put_off_trace(session, claimed)

    def release(self, session: Session, claimed: ClaimedTrace) -> None:
        release_trace(session, claimed)

    def trace(self, sessions: sessionmaker[Session], claimed: ClaimedTrace, on_wait: Callable[[], None]) -> None:
        with TemporaryDirectory(prefix="secateur-headers-") as temporary:
            question = _question(self._folder(claimed, Path(temporary)))
        answered = self.ask(question, TraceAnswer, on_wait)
        if answered.passes is None:
            raise DiscoveryFailed(answered.error or "the child process gave no reason")
        with transaction(sessions) as session:
            keep_trace(session, claimed, answered.passes)

    def _folder(self, claimed: ClaimedTrace, temporary: Path) -> Path:
        """Return a folder with the model's config, headers and preprocessing."""
        if claimed.path is not None:
            return Path(claimed.path)
        assert claimed.prefix is not None
        write_header_only_folder(temporary, claimed.files, read_from_store(self._store, claimed.prefix))
        return temporary


def _question(folder: Path) -> TraceQuestion:
    from core.engine.datasets.preprocessing import image_shape_of  # loads NumPy and Pillow

    description = describe_folder(folder).classifier
    config = read_config(folder)
    return TraceQuestion(
        config=config,
        tensors=_shapes(stored_tensors(folder, None)),
        image_shape=image_shape_of(folder, config, description.image),
    )


def _shapes(entries: Mapping[str, TensorEntry]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of each tensor by the file's key."""
    return {name: (entry.dtype, entry.shape) for name, entry in entries.items()}


class PassTracer(_Tracer[ClaimedPassTrace]):
    """Thread that traces passes over language models."""

    def __init__(self, store: Store, settings: Settings, *, command: Sequence[str] = TRACER) -> None:
        super().__init__("pass-tracer", store, settings, command)

    @property
    def seconds(self) -> float:
        return self._settings.pass_trace_seconds

    def claim(self, session: Session) -> ClaimedPassTrace | None:
        return claim_pass_trace(session, lease_seconds=self._lease_seconds)

    def facts(self, claimed: ClaimedPassTrace) -> Mapping[str, str]:
        return {"model": claimed.model.name, "method": claimed.traced.method}

    def put_off(self, session: Session, claimed: ClaimedPassTrace) -> None:
        put_off_pass_trace(session, claimed)

    def release(self, session: Session, claimed: ClaimedPassTrace) -> None:
        release_pass_trace(session, claimed)

    def trace(self, sessions: sessionmaker[Session], claimed: ClaimedPassTrace, on_wait: Callable[[], None]) -> None:
        with TemporaryDirectory(prefix="secateur-headers-") as temporary:
            question = self._question(self._folder(sessions, claimed, Path(temporary)), claimed)
        answered = self.ask(question, PassAnswer, on_wait)
        if answered.peak_bytes is None:
            raise DiscoveryFailed(answered.error or "the child process gave no reason")
        with transaction(sessions) as session:
            keep_pass_trace(session, claimed, answered.peak_bytes)

    def _question(self, folder: Path, claimed: ClaimedPassTrace) -> PassQuestion:
        model = claimed.model
        is_artifact = isinstance(model, StoredModel) and model.is_artifact
        entries: dict[str, Any] = {}
        for file in weight_files(folder):
            entries |= read_header(file)
        return PassQuestion(
            config=read_config(folder, own_artifact=is_artifact, discovered=model.discovered),
            tensors=_shapes(entries),
            own_artifact=is_artifact,
            discovered=model.discovered,
            traced=claimed.traced,
        )

    def _folder(self, sessions: sessionmaker[Session], claimed: ClaimedPassTrace, temporary: Path) -> Path:
        """Return a folder with the model's config and headers; raises what the store and the hub do."""
        model = claimed.model
        if isinstance(model, FolderModel):
            return model.path
        if isinstance(model, StoredModel):
            read = read_from_store(self._store, model.prefix)
        else:
            read = read_from_hub(sessions, claimed.team_id, model, self._settings)
        write_header_only_folder(temporary, model.files, read)
        return temporary
