"""Dense files that jobs of the team have measured of a model, for the comparison at equal bytes."""

from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.methods.registry import METHODS
from core.pipeline.recipes.recipe import stores_dense_model
from core.pipeline.reports.equal_bytes import (
    MeasuredFile,
    artifact_files,
    compare_at_equal_bytes,
    dense_files_of,
    is_done,
)
from core.pipeline.reports.report import Report
from core.service.jobs.schemas import Job
from core.service.jobs.service import is_of_kept_attempt, job_answer
from core.service.jobs.tables import JobReportRow, JobRow
from secateur_wire.equal_bytes import EqualBytes

STORING: Final = tuple(each.id for each in METHODS.values() if each.only_stores)
"""Ids of the methods that change no weight."""
_NEWEST: Final = 20
_PARTS: Final = ("dense", "window_losses")
"""Parts of a report that say what was measured on which windows."""


def known_dense_files(session: Session, team_id: str, revision: str) -> list[MeasuredFile]:
    """Return the dense files of a model's revision that the team's newest jobs have measured, the newest first."""
    rows = session.execute(
        select(JobRow, *(JobReportRow.report[name] for name in _PARTS))
        .join(JobReportRow, is_of_kept_attempt(JobReportRow))
        .where(
            JobRow.team_id == team_id,
            JobRow.model_revision == revision,
            JobRow.method.in_(STORING),
            JobRow.status == "succeeded",
        )
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(_NEWEST)
    )
    files: list[MeasuredFile] = []
    for row, *parts in rows:
        job = job_answer(row)
        if not stores_dense_model(job.method, job.vocabulary):
            continue
        files += dense_files_of(_report(*parts), job.measured, job.output, f"measured by {job.id}")
    return files


def newest_comparison(session: Session, team_id: str, job: Job) -> dict[str, EqualBytes]:
    """Return the job's comparison at equal bytes, with the dense files that were measured since it ended too."""
    before = job.measured.equal_bytes
    known = known_dense_files(session, team_id, job.model_revision) if before else []
    if not known:
        return before
    parts = session.execute(
        select(*(JobReportRow.report[name] for name in _PARTS))
        .join(JobRow, is_of_kept_attempt(JobReportRow))
        .where(JobRow.id == job.id)
    ).one()
    report = _report(*parts)
    measure = next((each.measure for each in before.values() if each.measure), None)
    if measure is not None and is_done(measure, artifact_files(report, job.measured), known):
        measure = None
    return compare_at_equal_bytes(report, job.measured, known, measure)


def _report(dense: object, window_losses: object) -> Report:
    parts = {"dense": dense, "window_losses": window_losses}
    return Report.model_validate({name: part for name, part in parts.items() if part is not None})
