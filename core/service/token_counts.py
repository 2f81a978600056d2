"""Counts of the tokens that a text uses: a worker's secluded child counts them, and plans state what could go.

A count is kept by the contents of the tokenizer's files and of the text. Until it is there, a plan says so, and a job
finds out by itself.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from core.engine.checkpoints.companions import TEMPLATE_FOLDER
from core.pipeline.messages import CountAnswer, CountedTokens
from core.service.questions.queue import QuestionKind, kept_answer, known_answer
from core.service.sources.references import FileReference, FileText, FolderModel, ModelReference, StoredText
from secateur_wire.errors import UnusableModel

_VERSION: Final = 1
"""Version of the choice of tokens: counts of an earlier one are made again."""
_MOST_FILE_BYTES: Final = 128 * 2**20
_SUFFIXES: Final = (".json", ".jinja")

RegisteredText = FileText | StoredText


class TokenCountQuestion(BaseModel):
    """Question to a worker: which tokens of a model's vocabulary a text uses."""

    model: ModelReference
    vocabulary_size: int
    text: RegisteredText


COUNT: Final = QuestionKind("tokens", TokenCountQuestion, CountAnswer)


def count_id(model: ModelReference, vocabulary_size: int, text: RegisteredText) -> str:
    """Return the id of the count of a text's tokens: it follows from the contents alone."""
    content = json.dumps([_VERSION, vocabulary_size, _content_of_tokenizer(model), _content_of_text(text)])
    return hashlib.sha256(content.encode()).hexdigest()


def known_count(
    session: Session, team_id: str, model: ModelReference, vocabulary_size: int, text: RegisteredText
) -> CountedTokens | None:
    """Return the tokens that a text uses; None where they are yet to be counted, or could not be.

    The first to ask has them counted. Raises UnusableModel where no tokens can go from this tokenizer, with the reason.
    """
    question = TokenCountQuestion(model=model, vocabulary_size=vocabulary_size, text=text)
    return _counted(known_answer(session, COUNT, team_id, count_id(model, vocabulary_size, text), question))


def kept_count(
    session: Session, model: ModelReference, vocabulary_size: int, text: RegisteredText
) -> CountedTokens | None:
    """Return the tokens that a text uses, if they were counted before; raises as `known_count`."""
    return _counted(kept_answer(session, COUNT, count_id(model, vocabulary_size, text)))


def naming_files(files: Iterable[FileReference]) -> list[FileReference]:
    """Return the files of a model that name tokens: tokenizer, configs and chat templates, without weights."""
    return [
        file
        for file in files
        if file.path.endswith(_SUFFIXES)
        and PurePosixPath(file.path).parent.as_posix() in (".", TEMPLATE_FOLDER)
        and file.bytes <= _MOST_FILE_BYTES
    ]


def _content_of_tokenizer(model: ModelReference) -> object:
    if isinstance(model, FolderModel):
        return model.revision
    return sorted([file.path, file.sha256 or file.git_blob or model.revision] for file in naming_files(model.files))


def _content_of_text(text: RegisteredText) -> object:
    content = text.sha256 if isinstance(text, FileText) else text.file.sha256
    return [content, text.format, text.text_field]


def _counted(answer: CountAnswer | None) -> CountedTokens | None:
    if answer is not None and answer.refusal is not None:
        raise UnusableModel(answer.refusal, param="model")
    return None if answer is None else answer.counted
