"""Alternatives to pruning, with what jobs of the team that stored the same model have measured of them."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Boolean, ColumnElement, literal_column, select
from sqlalchemy.orm import Session

from core.pipeline.recipes.recipe import stores_dense_model
from core.pipeline.reports.equal_bytes import name_of_file, stored_copy
from core.pipeline.reports.verdict import verdict_on
from core.service.jobs.equal_bytes import STORING, newest_comparison
from core.service.jobs.schemas import Job
from core.service.jobs.service import job_answer
from core.service.jobs.tables import JOB_EXPORTS, SHORT_ROW, JobRow
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Alternative, ExportedFile, Metrics

_NEWEST: Final = 20


def with_measured(
    session: Session, team_id: str, revision: str, dense_bytes: int, alternatives: Sequence[Alternative]
) -> list[Alternative]:
    """Return the alternatives of a model with the figures of the team's newest jobs on this revision.

    Jobs that stored the model unpruned measured its copies. Jobs that timed added files timed the dense model's files
    beside them, and jobs with a narrower `output.dtype` measured the dense model in that dtype. Types of files that
    only these jobs know are added. `dense_bytes` is the size of the dense model.
    """
    copies = {each.name: each for each in alternatives}
    for job in _newest(session, team_id, revision, literal_column(JOB_EXPORTS, Boolean)):
        for each in _dense_files(job, dense_bytes):
            known = copies.get(each.name)
            copies[each.name] = each if known is None else _joined(known, each)
    for job in _newest(session, team_id, revision, JobRow.metrics["alternatives"].is_not(None)):
        for each in job.measured.alternatives:
            if each.kl is not None or each.perplexity_ratio is not None:
                measured = each.model_copy(update={"basis": f"{each.basis}; its quality measured by {job.id}"})
                copies[each.name] = _joined(copies.get(each.name, measured), measured)
    for job in _newest(session, team_id, revision, JobRow.method.in_(STORING), JobRow.status == "succeeded"):
        if not stores_dense_model(job.method, job.vocabulary):
            continue
        copies |= {each.name: _joined(copies.get(each.name, each), each) for each in _measured(job, dense_bytes)}
    return sorted(copies.values(), key=lambda each: -each.bytes)


def _newest(session: Session, team_id: str, revision: str, *conditions: ColumnElement[bool]) -> list[Job]:
    """Return the team's newest jobs on a revision, the newest last."""
    query = (
        select(JobRow)
        .options(*SHORT_ROW)
        .where(JobRow.team_id == team_id, JobRow.model_revision == revision, *conditions)
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(_NEWEST)
    )
    return [job_answer(row) for row in reversed(session.scalars(query).all())]


def _joined(known: Alternative, newer: Alternative) -> Alternative:
    """Return a copy with the newer figures, and the known ones that the newer job did not measure.

    No speed keeps the noise of another.
    """
    noises = () if newer.decode is None else ("prefill_noise", "decode_noise")
    return known.model_copy(update={name: value for name, value in newer if value is not None or name in noises})


def job_with_measured(session: Session, team_id: str, job: Job) -> Job:
    """Return the job with what was measured since it ended: its model's alternatives, and dense files at equal bytes.

    Figures that it does not have are not added.
    """
    metrics = job.measured
    if metrics.bytes is None or not metrics.bytes.dense:
        return job
    newer: JsonObject = {}
    if metrics.alternatives:
        measured = with_measured(session, team_id, job.model_revision, metrics.bytes.dense, metrics.alternatives)
        newer["alternatives"] = [each.model_dump(mode="json") for each in measured]
    if metrics.equal_bytes:
        compared = newest_comparison(session, team_id, job)
        newer["equal_bytes"] = {name: each.document() for name, each in compared.items()}
    if not newer:
        return job
    figures = {**(job.metrics or {}), **newer}
    verdict = verdict_on(job.method, job.pattern, job.sparsity, Metrics.model_validate(figures))
    answer = job.model_copy(update={"metrics": figures, "verdict": verdict})
    vars(answer).pop("measured", None)  # the copy has the cached figures of the other one
    return answer


def _measured(job: Job, dense_bytes: int) -> list[Alternative]:
    """Return the copies that a job wrote, each with its measured bytes, quality and speed."""
    metrics, stored = job.measured, stored_copy(job.output)
    copies = []
    if stored is not None and metrics.bytes is not None and metrics.bytes.artifact:
        perplexities = [each for each in metrics.perplexity.values() if each.ratio is not None]
        bits = [each.bits_per_byte for each in perplexities if each.bits_per_byte is not None]
        size = metrics.bytes.artifact
        copies.append(
            Alternative(
                name=stored,
                output=job.output.model_dump(mode="json", include={"dtype", "quantization"}, exclude_defaults=True),
                bytes=size,
                ratio=size / dense_bytes,
                basis=f"measured by {job.id}",
                kl=None,
                top_1=None,
                perplexity_ratio=max((each.ratio for each in perplexities if each.ratio is not None), default=None),
                bits_per_byte_ratio=max((each.ratio for each in bits if each.ratio is not None), default=None),
                prefill=None,
                decode=None,
                prefill_noise=None,
                decode_noise=None,
            )
        )
    if stored is None:
        for each in metrics.exports:
            own = each.own_speed
            copy = _file(each, each.bytes, dense_bytes, job)
            copies.append(
                copy.model_copy(
                    update={
                        "kl": each.kl,
                        "top_1": each.top_1,
                        "perplexity_ratio": each.perplexity_ratio,
                        "bits_per_byte_ratio": each.bits_per_byte_ratio,
                        "prefill": None if own is None else own.prefill,
                        "decode": None if own is None else own.decode,
                        "prefill_noise": None if own is None else own.prefill_noise,
                        "decode_noise": None if own is None else own.decode_noise,
                    }
                )
            )
    return copies


def _dense_files(job: Job, dense_bytes: int) -> list[Alternative]:
    """Return the dense model's files that a job wrote and timed beside the pruned model's files."""
    return [
        _file(each, each.speed.dense_bytes, dense_bytes, job).model_copy(
            update={
                "prefill": each.speed.prefill.dense,
                "decode": each.speed.decode.dense,
                "prefill_noise": each.speed.prefill.noise,
                "decode_noise": each.speed.decode.noise,
            }
        )
        for each in job.measured.exports
        if each.speed is not None
    ]


def _file(file: ExportedFile, size: int, dense_bytes: int, job: Job) -> Alternative:
    return Alternative(
        name=name_of_file(file.format, file.type),
        output={"exports": [{"format": file.format, "types": [file.type]}]},
        bytes=size,
        ratio=size / dense_bytes,
        basis=f"measured by {job.id}",
        kl=None,
        top_1=None,
        perplexity_ratio=None,
        bits_per_byte_ratio=None,
        prefill=None,
        decode=None,
        prefill_noise=None,
        decode_noise=None,
    )
