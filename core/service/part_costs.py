"""Kept costs of models' parts: a worker measures them between jobs, for a shape of models and a workload.

The table names the machine and the engine's version that it was measured with.
"""

import hashlib
import json
from typing import Final

from pydantic import BaseModel
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from core.engine.architectures.description import ModelDescription
from core.engine.latency.costs import Workload
from core.engine.latency.model_widths import model_widths
from core.pipeline.messages import PartCostsReport
from core.service.questions.queue import QuestionKind, ask
from core.service.questions.tables import QuestionRow
from core.service.sources.references import ModelReference

_VERSION: Final = 1
"""Version of the measurement: tables of an earlier one are measured again."""


class PartCostsQuestion(BaseModel):
    """Question to a worker: the costs of the parts of a model for a workload."""

    model: ModelReference
    workload: Workload


def part_costs_kind(queue: str, engine: str) -> QuestionKind[PartCostsQuestion, PartCostsReport]:
    """Return the kind of the questions that workers of a queue which have the engine take."""
    return QuestionKind(f"part-costs {queue} {engine}", PartCostsQuestion, PartCostsReport)


def part_costs_id(description: ModelDescription, workload: Workload, queue: str) -> str:
    """Return the id of a question: all models of the same shape share it. Raises UnsupportedArchitecture."""
    widths = model_widths(description)
    facts = [_VERSION, widths.model_dump(mode="json"), description.layers, workload.model_dump(mode="json"), queue]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def kept_part_costs(
    session: Session, description: ModelDescription, workload: Workload, queue: str
) -> PartCostsReport | None:
    """Return the outcome of a measurement; None where it was never asked for, or is not over.

    A question that all attempts failed to answer has a report without table and error.
    """
    row = session.get(QuestionRow, part_costs_id(description, workload, queue))
    if row is None or (row.answer is None and row.due_at is not None):
        return None
    return PartCostsReport() if row.answer is None else PartCostsReport.model_validate(row.answer)


def is_known(session: Session, description: ModelDescription, workload: Workload, queue: str) -> bool:
    """Return whether a measurement was asked for."""
    return session.get(QuestionRow, part_costs_id(description, workload, queue)) is not None


def ask_for_part_costs(
    session: Session, team_id: str, model: ModelReference, description: ModelDescription, workload: Workload, queue: str
) -> None:
    """Have a worker measure; where it is measured already, again. One that is waited for stays as it is."""
    identity, kind = part_costs_id(description, workload, queue), part_costs_kind(queue, workload.engine)
    ask(session, kind, team_id, identity, PartCostsQuestion(model=model, workload=workload))
    session.execute(
        update(QuestionRow)
        .where(QuestionRow.id == identity, QuestionRow.due_at.is_(None))
        .values(due_at=func.clock_timestamp(), attempts=0, answer=None)
        .execution_options(synchronize_session="fetch")
    )
