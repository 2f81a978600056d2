"""Traces of registered image classifiers: what a pass over an image takes, which is stored with the model."""

from typing import Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from core.engine.architectures.description import ClassifierPasses, TraceAnswer
from core.service.questions.queue import QuestionKind, ask
from core.service.registry.tables import ModelRow
from core.service.sources.references import FileReference


class ClassifierQuestion(BaseModel):
    """Question to a worker: the passes of a classifier, in a folder of its machine or below a prefix of the store."""

    name: str
    path: str | None
    prefix: str | None
    files: tuple[FileReference, ...]


CLASSIFIER: Final = QuestionKind("classifier", ClassifierQuestion, TraceAnswer)


def ask_for_trace(session: Session, row: ModelRow) -> None:
    """Have a worker trace a registered classifier."""
    question = ClassifierQuestion(name=row.name, path=row.path, prefix=row.prefix, files=row.files or ())
    ask(session, CLASSIFIER, row.team_id, row.id, question)


def store_trace(session: Session, model_id: str, passes: ClassifierPasses) -> None:
    """Store the result with the model, if the model still exists."""
    row = session.get(ModelRow, model_id, with_for_update={"key_share": True})
    if row is not None:
        row.description = row.description | {"passes": passes.model_dump(mode="json")}
