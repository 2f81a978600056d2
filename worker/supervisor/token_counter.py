"""A worker's counts of tokens: a thread of its parent process has a secluded child count the tokens of texts.

It does so beside whatever job the worker has, one at a time. The child gets the tokenizer's files and the text.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.pipeline.messages import CountAnswer, CountQuestion, TextSource
from core.service.plans.token_counts import (
    ClaimedCount,
    RegisteredText,
    claim_count,
    keep_count,
    keep_refusal,
    naming_files,
    put_off_count,
    release_count,
)
from core.service.sources.references import FileText, FolderModel, StoredModel
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import DiscoveryFailed, SecateurError
from worker.supervisor.request_taker import RequestTaker
from worker.supervisor.secluded_child import ask_child
from worker.supervisor.small_files import read_from_hub, read_from_store

COUNTER: Final[tuple[str, ...]] = (sys.executable, "-m", "core.pipeline.stages.count_tokens")
_MORE_SECONDS: Final = 600.0
"""Seconds beside the child's own after which a count is another worker's: the text is copied from the store first."""

logger = structlog.get_logger()


class TokenCounter(RequestTaker[ClaimedCount]):
    """Thread that counts tokens, one text at a time, once it is started."""

    foreseen = (SecateurError, OSError)

    def __init__(self, store: Store, settings: Settings, *, command: Sequence[str] = COUNTER) -> None:
        super().__init__("token-counter", settings, settings.discovery_poll_seconds)
        self._store = store
        self._command = command

    def claim(self, session: Session) -> ClaimedCount | None:
        return claim_count(session, lease_seconds=self._settings.pass_trace_seconds + _MORE_SECONDS)

    def facts(self, claimed: ClaimedCount) -> Mapping[str, str]:
        return {"model": claimed.model.name, "text": claimed.text.name}

    def release(self, session: Session, claimed: ClaimedCount) -> None:
        release_count(session, claimed)

    def fulfil(self, sessions: sessionmaker[Session], claimed: ClaimedCount, on_wait: Callable[[], None]) -> None:
        with TemporaryDirectory(prefix="secateur-tokens-") as temporary:
            question = CountQuestion(
                folder=self._folder(sessions, claimed, Path(temporary)),
                vocabulary_size=claimed.vocabulary_size,
                text=self._text(claimed.text, Path(temporary)),
            )
            text = ask_child(
                self._command,
                question.model_dump_json(),
                name="tokens",
                settings=self._settings,
                on_wait=on_wait,
                seconds=self._settings.pass_trace_seconds,
            )
        try:
            answered = CountAnswer.model_validate_json(text)
        except ValidationError as error:
            raise DiscoveryFailed("the child's answer is no count of tokens") from error
        with transaction(sessions) as session:
            if answered.counted is None:
                keep_refusal(session, claimed, answered.refusal or "the child process gave no reason")
            else:
                keep_count(session, claimed, answered.counted)
        logger.info("tokens counted")

    def fail(self, session: Session, claimed: ClaimedCount, error: Exception) -> None:
        """Put the count off: nobody waits for it, and plans do without."""
        put_off_count(session, claimed)
        logger.info("tokens not counted", attempt=claimed.attempt, reason=f"{type(error).__name__}: {error}"[:300])

    def _folder(self, sessions: sessionmaker[Session], claimed: ClaimedCount, temporary: Path) -> Path:
        """Return a folder with the files that name tokens; raises what the store and the hub do."""
        model = claimed.model
        if isinstance(model, FolderModel):
            return model.path
        if isinstance(model, StoredModel):
            read = read_from_store(self._store, model.prefix)
        else:
            read = read_from_hub(sessions, claimed.team_id, model, self._settings)
        folder = temporary / "model"
        for file in naming_files(model.files):
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read(file, 0, file.bytes))
        return folder

    def _text(self, text: RegisteredText, temporary: Path) -> TextSource:
        """Return a text as a file of this machine; raises what the store does."""
        if isinstance(text, FileText):
            path = text.path
        else:
            path = temporary / "text"
            self._store.fetch(text.prefix, text.file.path, path)
        return TextSource(name=text.name, path=path, format=text.format, text_field=text.text_field)
