"""From a request to what will be run: everything named is looked up, defaults are filled in, and what cannot be meant
is refused, with the parameter at fault, before anything is queued."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.artifacts.store import LocalStore, artifact_prefix
from core.catalogue.compatibility import check_job
from core.catalogue.methods import get_method
from core.catalogue.model_folder import ModelDescription, inspect_folder
from core.errors import InvalidRequest, TooLittleText, UnknownDataset, UnknownModel
from core.jobs.broker import CONTROL_QUEUE
from core.jobs.schemas import DEFAULT_SEQUENCE_LENGTH, Calibration, Evaluation, JobBody
from core.jobs.tables import ArtifactFileRow, JobRow
from core.registry.service import dataset_names, find_dataset_row, find_model_row, model_names
from core.registry.tables import DatasetRow

JOB_PREFIX = "job:"
_MOST_BYTES_PER_CHARACTER = 4


@dataclass(frozen=True)
class ResolvedModel:
    """A model as a job runs it: a folder, the hash of its content, and what it holds."""

    name: str
    path: str
    revision: str
    description: ModelDescription


@dataclass(frozen=True)
class ResolvedJob:
    """A request that can be run: the body with defaults filled in, and where everything it names lies."""

    body: JobBody
    model: ResolvedModel
    sources: Mapping[str, Any]


def resolve_job(session: Session, team_id: str, body: JobBody, store: LocalStore) -> ResolvedJob:
    """Check a request and fill in its defaults; raises the InvalidRequest kind that names the fault."""
    _refuse_unavailable(body)
    method = get_method(body.method)
    model = resolve_model(session, team_id, body.model, store)
    checked = check_job(model.description, body.method, body.pattern, body.sparsity, body.parameters)
    if method.needs.calibration and body.calibration is None:
        raise InvalidRequest(
            f'calibration is required: {body.method} measures activations on text, for example "calibration": '
            '{"dataset": "NAME", "samples": 128, "sequence_length": 512}',
            param="calibration",
        )
    calibration, calibration_row = _resolve_calibration(session, team_id, body, model.description)
    evaluation, evaluation_rows = _resolve_evaluation(session, team_id, body, calibration, model.description)
    if body.gates.max_perplexity_ratio is not None and not evaluation.datasets:
        raise InvalidRequest(
            "gates.max_perplexity_ratio needs a text to measure on: name one in evaluation.datasets",
            param="gates.max_perplexity_ratio",
        )
    filled = body.model_copy(
        update={
            "pattern": checked.pattern,
            "sparsity": checked.sparsity,
            "parameters": checked.parameters,
            "calibration": calibration,
            "evaluation": evaluation,
        }
    )
    sources = {
        "model": {"name": model.name, "path": model.path, "revision": model.revision},
        "calibration": None if calibration_row is None else _source(calibration_row),
        "evaluation": [_source(row) for row in evaluation_rows],
    }
    return ResolvedJob(body=filled, model=model, sources=sources)


def resolve_model(session: Session, team_id: str, reference: str, store: LocalStore) -> ResolvedModel:
    """The model a reference means: a registered name, or `job:ID` for a job's artifact. Raises UnknownModel."""
    if reference.startswith(JOB_PREFIX):
        return _artifact_model(session, team_id, reference, store)
    row = find_model_row(session, team_id, reference)
    if row is None:
        if "/" in reference:
            raise UnknownModel(
                f"model {reference!r}: models of the hub are not available yet; register a folder and use its name",
                param="model",
            )
        known = ", ".join(model_names(session, team_id)) or "none"
        raise UnknownModel(f"there is no model {reference!r}; registered: {known}", param="model")
    return ResolvedModel(row.name, row.path, row.revision, ModelDescription.model_validate(row.description))


def _artifact_model(session: Session, team_id: str, reference: str, store: LocalStore) -> ResolvedModel:
    job_id = reference.removeprefix(JOB_PREFIX)
    job = session.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.team_id == team_id))
    if job is None:
        raise UnknownModel(f"model {reference!r}: there is no job {job_id!r}", param="model")
    if job.status != "succeeded":
        raise UnknownModel(
            f"model {reference!r}: the job is {job.status}, only one that succeeded is a model", param="model"
        )
    files = session.execute(
        select(ArtifactFileRow.sha256, ArtifactFileRow.path).where(
            ArtifactFileRow.job_id == job.id, ArtifactFileRow.attempt == job.attempt
        )
    )
    # As core.registry.folders.content_hash, from the hashes taken when the files were stored.
    lines = "".join(f"{row.sha256}  {row.path}\n" for row in sorted(files, key=lambda each: each.path))
    folder = store.folder(artifact_prefix(job.id, job.attempt))
    revision = "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    return ResolvedModel(reference, str(folder), revision, inspect_folder(folder))


def _refuse_unavailable(body: JobBody) -> None:
    """Fields the contract names and this version cannot honour are refused, not ignored."""
    asked = {
        "target": body.target is not None,
        "recovery": body.recovery is not None,
        "evaluation.tasks": bool(body.evaluation.tasks),
        "output.format": body.output.format != "dense",
        "output.layout": body.output.layout != "uniform",
    }
    for param, is_asked in asked.items():
        if is_asked:
            raise InvalidRequest(f"{param} is not available yet: leave it out", param=param)
    if body.queue == CONTROL_QUEUE:
        raise InvalidRequest(f"queue {CONTROL_QUEUE!r} is the dispatcher's: workers do not take from it", param="queue")


def _resolve_calibration(
    session: Session, team_id: str, body: JobBody, description: ModelDescription
) -> tuple[Calibration | None, DatasetRow | None]:
    asked = body.calibration
    if asked is None:
        return None, None
    row = _find_text(session, team_id, asked.dataset, "calibration.dataset")
    length = _sequence_length(asked.sequence_length, None, description, "calibration.sequence_length")
    _check_enough(row, asked.samples, length, "calibration")
    return asked.model_copy(update={"sequence_length": length}), row


def _resolve_evaluation(
    session: Session, team_id: str, body: JobBody, calibration: Calibration | None, description: ModelDescription
) -> tuple[Evaluation, list[DatasetRow]]:
    asked = body.evaluation
    default = None if calibration is None else calibration.sequence_length
    length = _sequence_length(asked.sequence_length, default, description, "evaluation.sequence_length")
    rows = []
    for index, name in enumerate(asked.datasets):
        param = f"evaluation.datasets.{index}"
        if name in asked.datasets[:index]:
            raise InvalidRequest(f"{param}: {name!r} is named twice", param=param)
        row = _find_text(session, team_id, name, param)
        _check_enough(row, asked.samples, length, "evaluation")
        rows.append(row)
    return asked.model_copy(update={"sequence_length": length}), rows


def _find_text(session: Session, team_id: str, name: str, param: str) -> DatasetRow:
    row = find_dataset_row(session, team_id, name)
    if row is not None:
        return row
    if name == "self" or "/" in name:
        what = "text generated by the model itself" if name == "self" else "datasets of the hub"
        raise UnknownDataset(f"{param} {name!r}: {what} is not available yet; register a text", param=param)
    known = ", ".join(dataset_names(session, team_id)) or "none"
    raise UnknownDataset(f"{param}: there is no dataset {name!r}; registered: {known}", param=param)


def _sequence_length(asked: int | None, default: int | None, description: ModelDescription, param: str) -> int:
    if asked is None:
        return default or min(DEFAULT_SEQUENCE_LENGTH, description.context_length)
    if asked > description.context_length:
        raise InvalidRequest(
            f"{param} {asked} is longer than the model's context of {description.context_length} tokens", param=param
        )
    return asked


def _check_enough(row: DatasetRow, samples: int | None, sequence_length: int, part: str) -> None:
    """A token is at least one byte of text, so a shorter text cannot suffice. The runner counts exactly."""
    needed = (samples or 1) * sequence_length
    most = _MOST_BYTES_PER_CHARACTER * row.characters
    there = most if row.format == "parquet" else min(most, row.bytes)  # a Parquet file is compressed
    if there < needed:
        shape = f"{samples or 1} × {sequence_length}"
        raise TooLittleText(
            f"{part}: {row.name!r} is too short: {needed} tokens are needed ({shape}), {there} bytes of text are there",
            param=f"{part}.samples",
        )


def _source(row: DatasetRow) -> dict[str, str]:
    return {
        "name": row.name,
        "path": row.path,
        "format": row.format,
        "text_field": row.text_field,
        "sha256": row.sha256,
    }
