"""Resolution of a job's `recovery`: its defaults, the text it trains on, and the teacher it learns from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from core.engine.architectures.description import ModelDescription
from core.engine.options.patterns import STRUCTURED
from core.engine.recovery.completion import check_matching, complete_recovery
from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery, most_sequences, own_sequences, stage_texts
from core.errors import InvalidRequest, SecateurError, UnsupportedArchitecture
from core.methods.registry import get_method
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.resolution.model import ResolvedModel, resolve_model
from core.service.jobs.resolution.text import SELF, TRAINING_SEED, TextNeeds, generated_text, resolve_text
from core.service.jobs.schemas import JobBody
from core.service.sources.references import SelfText, TextReference
from core.storage import Store
from secateur_wire.job_body import Calibration

_TEACHER = "recovery.teacher"


@dataclass(frozen=True)
class ResolvedRecovery:
    """Recovery with defaults filled in, and references to its text and teacher; None where nothing is trained."""

    recovery: Recovery | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)


def resolve_recovery(
    session: Session,
    team_id: str,
    body: JobBody,
    pattern: str | None,
    calibration: Calibration | None,
    calibration_text: TextReference | None,
    description: ModelDescription,
    store: Store,
    hub: HubFindings,
) -> ResolvedRecovery:
    """Return the recovery with its defaults, texts and teacher; raises the error that names the fault.

    `pattern`, `calibration` and its text are resolved, None where the body has none.
    """
    method = get_method(body.method)
    prunes = method.prunes
    if body.recovery is None:
        if prunes or method.measures:
            return ResolvedRecovery()
        raise InvalidRequest(
            f'recovery is required: {body.method} only trains, for example "recovery": {{"method": "lora", "dataset": '
            '"NAME", "steps": 200}',
            param="recovery",
        )
    recovery = complete_recovery(
        body.recovery,
        description,
        calibration.sequence_length if calibration else None,
        loses_units=pattern == STRUCTURED.text,
    )
    assert recovery.sequence_length is not None
    length, texts = recovery.sequence_length, []
    for name, param, stage in stage_texts(recovery):
        needs = TextNeeds("calibration", param, None, length, recovery.seed, stage.steps * recovery.batch_size)
        texts.append(resolve_text(session, team_id, name, needs, hub))
    text = texts[0] if texts else calibration_text
    if recovery.dataset is not None:
        most = most_sequences(recovery)
        needs = TextNeeds(
            "calibration", "recovery.dataset", recovery.samples, recovery.sequence_length, recovery.seed, most
        )
        text = resolve_text(session, team_id, recovery.dataset, needs, hub)
    if text is None:
        raise InvalidRequest(
            'recovery.dataset is required, for there is no calibration text to train on: add "dataset": "NAME" to '
            'recovery, or "calibration": {"dataset": "NAME"} to the job',
            param="recovery.dataset",
        )
    if isinstance(text, SelfText) and recovery.own_text:
        if body.recovery.own_text:
            raise InvalidRequest(
                f"recovery.own_text: with the dataset {SELF!r} the model writes all of it: leave it out",
                param="recovery.own_text",
            )
        recovery = recovery.model_copy(update={"own_text": 0.0})
    sources: dict[str, Any] = {"recovery": [each.model_dump(mode="json") for each in texts or [text]]}
    if RECOVERIES[recovery.method].learns_from_model:
        if prunes and recovery.teacher is not None:
            raise InvalidRequest(
                f"{_TEACHER} belongs to method recover: a model that is pruned learns from its own dense self",
                param=_TEACHER,
            )
        if not prunes:
            teacher = _resolve_teacher(session, team_id, recovery, description, store, hub, body.queue)
            recovery = recovery.model_copy(update={"teacher": teacher.pinned})
            sources["teacher"] = teacher.reference.model_dump(mode="json")
    if written := own_sequences(recovery):
        needs = TextNeeds("calibration", "recovery.own_text", written, length, recovery.seed + TRAINING_SEED)
        sources["own_text"] = generated_text(needs).model_dump(mode="json")
    return ResolvedRecovery(recovery, sources)


def _resolve_teacher(
    session: Session,
    team_id: str,
    recovery: Recovery,
    student: ModelDescription,
    store: Store,
    hub: HubFindings,
    queue: str,
) -> ResolvedModel:
    named = recovery.teacher
    if named is None:
        raise InvalidRequest(
            f"{_TEACHER} is required: name the model to learn from, for example the one this was pruned from",
            param=_TEACHER,
        )
    try:
        teacher = resolve_model(session, team_id, named, store, hub, queue)
    except SecateurError as error:
        error.param = _TEACHER
        raise
    try:
        described = teacher.description.language_model
    except UnsupportedArchitecture:
        raise InvalidRequest(f"{_TEACHER}: {named!r} is no language model", param=_TEACHER) from None
    if described.vocabulary_size != student.vocabulary_size:
        raise InvalidRequest(
            f"{_TEACHER}: {named!r} has a vocabulary of {described.vocabulary_size}, the model one of "
            f"{student.vocabulary_size}: distill compares word by word",
            param=_TEACHER,
        )
    check_matching(recovery, student, described)
    return teacher
