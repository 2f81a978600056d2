"""A worker's counts of tokens: the child gets the tokenizer's files and a text, and counts the tokens of the text."""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from core.pipeline.messages import CountAnswer, CountQuestion, TextSource
from core.service.questions.queue import ClaimedQuestion
from core.service.sources.references import FileText, FolderModel
from core.service.token_counts import COUNT, RegisteredText, TokenCountQuestion, naming_files
from worker.supervisor.question_taker import QuestionTaker
from worker.supervisor.small_files import read_model


class TokenCounter(QuestionTaker[TokenCountQuestion, CountAnswer]):
    """Thread that counts tokens, one text at a time, once it is started."""

    kind = COUNT

    def facts(self, claimed: ClaimedQuestion[TokenCountQuestion]) -> Mapping[str, str]:
        return {"model": claimed.question.model.name, "text": claimed.question.text.name}

    def ask(
        self, sessions: sessionmaker[Session], claimed: ClaimedQuestion[TokenCountQuestion], temporary: Path
    ) -> tuple[CountQuestion, int]:
        question = CountQuestion(
            folder=self._folder(sessions, claimed, temporary),
            vocabulary_size=claimed.question.vocabulary_size,
            text=self._text(claimed.question.text, temporary),
        )
        return question, 0

    def _folder(
        self, sessions: sessionmaker[Session], claimed: ClaimedQuestion[TokenCountQuestion], temporary: Path
    ) -> Path:
        """Return a folder with the files that name tokens; raises what the store and the hub do."""
        model = claimed.question.model
        if isinstance(model, FolderModel):
            return model.path
        read = read_model(sessions, self._store, claimed.team_id, model, self._settings)
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
