"""Lineage of a job or a registered model: the models, jobs, data and people that made it, and what was made of it.

A model leads to a job of the team where the signed statement that came with it is this installation's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.service.jobs.resolution.hub_lookup import JOB_PREFIX
from core.service.jobs.schemas import Job
from core.service.jobs.service import find_job, job_answer, list_jobs
from core.service.jobs.tables import JobRow
from core.service.registry.service import model_answer
from core.service.registry.tables import ModelRow
from core.service.sources import references
from core.service.teams import audit
from secateur_wire.errors import NotFound
from secateur_wire.models import Model

_MOST_STEPS: Final = 40
_MOST_FURTHER: Final = 20
_USES: Final[Mapping[str, "Use"]] = {"calibration": "calibration", "vocabulary": "vocabulary", "recovery": "training"}
"""Use of the data of a job by its name in the job's `sources`."""

Use = Literal["calibration", "vocabulary", "training", "teacher"]


@dataclass(frozen=True)
class Input:
    """Text or image set that a job's artifact was made with, or the model that it learned from (`teacher`).

    `content` is the hash of its content, or its commit on the hub; None where the model wrote the text itself.
    """

    name: str
    use: Use
    content: str | None


@dataclass(frozen=True)
class LineageStep:
    """A job or model on the way, by its id or name, and the name of who submitted or added it.

    Both `job` and `model` are None for a model of the hub, and for what was removed or replaced since.
    """

    name: str
    job: Job | None = None
    model: Model | None = None
    inputs: Sequence[Input] = ()
    person: str | None = None


@dataclass(frozen=True)
class Lineage:
    """Way to a job or model, which is the last of `steps`; the oldest is the first. Older ones may be left out.

    `further` are the newest jobs on the artifact of a job; `has_more` says that there are others. `models` are the
    registered ones that are such an artifact.
    """

    steps: Sequence[LineageStep]
    are_left_out: bool
    further: Sequence[Job]
    has_more: bool
    models: Sequence[Model]


def lineage_of_job(session: Session, team_id: str, job_id: str) -> Lineage:
    """Return the lineage of a job of a team, and what was made of its artifact. Raises NotFound."""
    row = find_job(session, team_id, job_id)
    further = list_jobs(session, team_id, limit=_MOST_FURTHER, after=None, model=JOB_PREFIX + row.id)
    is_artifact = ModelRow.provenance["job"].astext == row.id
    models = select(ModelRow).where(ModelRow.team_id == team_id, is_artifact).order_by(ModelRow.created_at.desc())
    return Lineage(
        *_way_to(session, team_id, row),
        further.data,
        further.has_more,
        [model_answer(session, each) for each in session.scalars(models.limit(_MOST_FURTHER))],
    )


def lineage_of_model(session: Session, team_id: str, row: ModelRow) -> Lineage:
    """Return the lineage of a registered model of a team, without the jobs on it."""
    return Lineage(*_way_to(session, team_id, row), (), has_more=False, models=())


_Row = JobRow | ModelRow | str
"""Row of a step; the name of a model that has none."""


def _way_to(session: Session, team_id: str, last: _Row) -> tuple[Sequence[LineageStep], bool]:
    """Return the steps to a job or model, and whether older ones are left out."""
    rows = [last]
    while (parent := _parent(session, team_id, rows[0])) is not None and len(rows) < _MOST_STEPS:
        rows.insert(0, parent)
    submitters = audit.actors_of(session, team_id, "job.submit", [row.id for row in rows if isinstance(row, JobRow)])
    adders = audit.actors_of(session, team_id, "model.register", [row.id for row in rows if isinstance(row, ModelRow)])
    steps: list[LineageStep] = []
    for row in rows:
        match row:
            case JobRow():
                steps.append(LineageStep(row.id, job_answer(row), None, list(_inputs_of(row)), submitters.get(row.id)))
            case ModelRow():
                steps.append(LineageStep(row.name, None, model_answer(session, row), (), adders.get(row.id)))
            case _:
                steps.append(LineageStep(row))
    return steps, parent is not None


def _parent(session: Session, team_id: str, row: _Row) -> _Row | None:
    """Return what a job or model was made from; None where that is the beginning, or unknown."""
    match row:
        case ModelRow(provenance={"job": str(job_id)}):
            return _job_or_none(session, team_id, job_id)
        case JobRow():
            name = job_answer(row).model
            if name.startswith(JOB_PREFIX):
                return _job_or_none(session, team_id, name.removeprefix(JOB_PREFIX)) or name
            same = select(ModelRow).where(
                ModelRow.team_id == team_id, ModelRow.name == name, ModelRow.revision == row.model_revision
            )
            return session.scalar(same) or name
    return None


def _job_or_none(session: Session, team_id: str, job_id: str) -> JobRow | None:
    try:
        return find_job(session, team_id, job_id)
    except NotFound:
        return None


def _inputs_of(row: JobRow) -> Iterator[Input]:
    """Yield each set that a job calibrates or trains on or takes its vocabulary from, and its teacher."""
    images: Mapping[str, Any] = row.sources.get("images") or {}
    for name, use in _USES.items():
        for value in (row.sources.get(name), images.get(name)):
            for each in value if isinstance(value, list) else [value]:
                if each is not None:
                    reference = references.data_references.validate_python(each)
                    yield Input(reference.name, use, _content_of(reference))
    if (teacher := row.sources.get("teacher")) is not None:
        model = references.model_references.validate_python(teacher)
        yield Input(model.name, "teacher", model.revision)


def _content_of(reference: references.DataReference) -> str | None:
    match reference:
        case references.FileText(sha256=sha256) | references.FileImages(sha256=sha256):
            return sha256
        case references.StoredText(file=file) | references.StoredImages(file=file):
            return file.sha256
        case references.HubText(revision=revision) | references.HubImages(revision=revision):
            return revision
        case references.AnsweredText(prompts=prompts):
            return _content_of(prompts)
    return None
