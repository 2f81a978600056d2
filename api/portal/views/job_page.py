"""Page of a job in parts: each part is rendered by itself, so that only changed parts are sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from api.portal.views.answers import answer_rows, answered_sets
from api.portal.views.error_advice import advice_for, title_of
from api.portal.views.layer_table import chart_height, layer_figures
from api.portal.views.metric_curves import MetricCurve, curves_of
from api.portal.views.picture import result_panels
from api.portal.views.result_cards import cards, evaluation_rows, gate_rows
from api.portal.views.summary import summarise
from core.engine.options.sensitivity import Sensitivity
from core.methods.registry import METHODS
from core.pipeline.reports.how_to_run import ways_to_run
from core.pipeline.reports.report import Report
from core.service.jobs import service
from core.service.jobs.lineage import lineage_of_job
from core.service.jobs.schemas import Job, JobBody
from core.service.jobs.snapshots import Snapshot, newest_events
from core.service.jobs.states import LEASED, STAGES, TERMINAL
from core.service.publications.service import list_publications
from secateur_wire.errors import GateMissed, NotFound
from secateur_wire.jobs import JobAttempt, JobEvent
from secateur_wire.progress import between, seconds_range
from secateur_wire.provenance import PROVENANCE
from secateur_wire.states import EventType, Stage

LOG_LINES = 500
"""Number of log lines in the page; the whole log is a file."""
LOG_EVENTS: Final[tuple[EventType, ...]] = ("log", "stage")
"""Types of the events that are lines of the log: few jobs write lines of their own, but each goes through stages."""
_METRIC_EVENTS = 20_000
"""Number of newest metric events that curves are drawn from."""
_ATTEMPTS = 20
_PUBLICATIONS = 5
_LAST_LINES = 10
"""Number of log lines shown with the error."""
STAGE_WORDS: Final[Mapping[Stage, str]] = {
    "fetch": "The model's files and the texts are copied to the worker, and checked against their hashes.",
    "write": "The model writes text of its own, to calibrate or train on. Each batch is saved once it is finished.",
    "open": "The model is read, and the calibration text is cut into windows of tokens.",
    "prune": "The calibration text goes through the model block by block. Each block loses the parts that its output "
    "depends on least. The reconstruction error is the share of that output that changed: 0 % is no change.",
    "recover": "The remaining weights are trained. The loss should fall. Once it is level, more training gains little.",
    "evaluate": "The dense model (before pruning) and the pruned model are measured in the same way. Perplexity is "
    "how many tokens, in effect, a model hesitates between at each place of a text. Lower is better. The ratio to "
    "the dense model is the cost of pruning.",
    "verify": "A new process opens the result as you will, and compares its outputs with those of the pruned model.",
    "store": "The files go to the store. You can download them when all have arrived.",
}
"""Each stage: its work, and the meaning of its numbers, for a first-time user."""


def head(now: Snapshot, newest: Sequence[JobEvent]) -> dict[str, Any]:
    """Return state, progress, the worker's current activity, the remaining time, and the time of its last heartbeat.

    `newest` has the newest events. A job's `started_at` is that of its newest attempt. Durations are as of now: the
    browser counts on from them.
    """
    job = now.job
    seconds, deviation = job.estimated_seconds, job.estimated_seconds_deviation
    stage_words = next((words for stage, words in STAGE_WORDS.items() if stage == job.stage), None)
    context: dict[str, Any] = {
        "job": job,
        "elapsed": None,
        "remaining": job.seconds_left,
        "estimated": None if seconds is None else between(*seconds_range(seconds, deviation)),
        "stage_words": stage_words,
    }
    if job.status in LEASED and job.started_at is not None:
        moment = datetime.now(UTC)
        elapsed = (moment - job.started_at).total_seconds()
        heard_at = newest[-1].created_at if newest else job.started_at
        context |= {
            "elapsed": elapsed,
            "silent": max((moment - heard_at).total_seconds(), 0.0),
            "doing": _doing(newest),
        }
    return context


def _doing(newest: Sequence[JobEvent]) -> str | None:
    """Return the activity in the last progress event, unless a stage or an attempt began after it."""
    for event in reversed(newest):
        if event.type == "progress":
            doing = event.data.get("doing")
            return doing if isinstance(doing, str) else None
        if event.type in ("stage", "status"):
            return None
    return None


def stages(session: Session, team_id: str, now: Snapshot) -> dict[str, Any]:
    """Return the newest attempt's stages, and all attempts."""
    job = now.job
    attempts = service.list_attempts(session, team_id, job.id, limit=_ATTEMPTS, after=None)
    times = []
    if attempts.data:
        newest = attempts.data[0]
        events = newest_events(
            session, team_id, job.id, ["stage"], up_to=now.last_event, attempt=newest.attempt, limit=_METRIC_EVENTS
        )
        times = stage_times(newest, events, datetime.now(UTC))
    return {
        "job": job,
        "attempts": attempts,
        "stage_times": times,
        "title_of": title_of,
        "all_stage_words": STAGE_WORDS,
    }


def log(session: Session, team_id: str, now: Snapshot) -> dict[str, Any]:
    """Return the last lines of the log, with the stages that began between them."""
    lines = newest_events(session, team_id, now.job.id, LOG_EVENTS, up_to=now.last_event, limit=LOG_LINES + 1)
    return {
        "lines": lines[-LOG_LINES:],
        "most_lines": LOG_LINES,
        "left_out": len(lines) > LOG_LINES,
        "events_removed_at": now.events_removed_at,
    }


def curves(session: Session, team_id: str, now: Snapshot) -> list[MetricCurve]:
    return curves_of(
        newest_events(session, team_id, now.job.id, ["metric"], up_to=now.last_event, limit=_METRIC_EVENTS)
    )


def result(session: Session, team_id: str, now: Snapshot) -> dict[str, Any]:
    """Return how the job ended: figures and files, or the error. Empty while it is not over."""
    job = now.job
    if job.status not in TERMINAL:
        return {"is_over": False}
    recipe, metrics = recipe_of(job), job.measured
    report = _report(session, team_id, job)
    files = service.list_artifacts(session, team_id, job.id).data
    method = METHODS.get(job.method)
    before, after = ("dense", "pruned") if method is None else method.model_names
    names = before.capitalize(), after.capitalize()
    last_lines: Sequence[JobEvent] = []
    if job.status == "failed":
        last_lines = newest_events(session, team_id, job.id, ["log"], up_to=now.last_event, limit=_LAST_LINES)
    return {
        "is_over": True,
        "method": method,
        "panels": result_panels(metrics, job.verdict, names),
        "names": names,
        "notes": report.notes,
        "summary": summarise(recipe, metrics, report, job.verdict) if metrics.model_fields_set else None,
        "cards": cards(metrics),
        "rows": [*answer_rows(metrics), *evaluation_rows(metrics)],
        "gates": gate_rows(report),
        "layers": layer_figures(report),
        "layers_chart_height": chart_height(report),
        "sensitivity": Sensitivity.model_validate(report.sensitivity) if report.sensitivity else None,
        "vocabulary": report.vocabulary,
        "generations": report.generations,
        "answers": answered_sets(report, names),
        "lineage": lineage_of_job(session, team_id, job.id) if job.status == "succeeded" else None,
        "methods": METHODS,
        "is_signed": any(file.path == PROVENANCE for file in files),
        "publications": list_publications(session, team_id, job.id, limit=_PUBLICATIONS, after=None).data,
        "files": files,
        "ways": ways_to_run(report, metrics, [file.path for file in files], job.id),
        "restored": metrics.bytes is not None and metrics.bytes.restored_from is not None,
        "advice": None if job.error is None else advice_for(job.error.code),
        "error_title": None if job.error is None else title_of(job.error.code),
        "last_lines": last_lines,
    }


def recipe_of(job: Job) -> dict[str, Any]:
    """Return the body that creates the same job again, with defaults filled in."""
    body = JobBody.model_validate(job.model_dump(mode="json", include=set(JobBody.model_fields)))
    return body.model_dump(mode="json")


def _report(session: Session, team_id: str, job: Job) -> Report:
    try:
        return service.get_report(session, team_id, job.id)
    except NotFound:
        return Report()


@dataclass(frozen=True)
class StageTime:
    """Stage of an attempt, with its duration so far.

    `seconds` is None before it begins, `running_since` is None unless it runs; `is_cut_short` if the attempt ended
    before the stage did.
    """

    stage: Stage
    seconds: float | None
    running_since: datetime | None
    is_cut_short: bool = False


def stage_times(attempt: JobAttempt, events: Sequence[JobEvent], now: datetime) -> list[StageTime]:
    """Return one attempt's stages in their order, beginning with fetching; `events` are its stage events."""
    starts: list[tuple[str, datetime]] = [("fetch", attempt.started_at)]
    starts += [(str(event.data["stage"]), event.created_at) for event in events if event.attempt == attempt.attempt]
    seconds = _added_up(starts, attempt.ended_at or now) if attempt.stages is None else attempt.stages
    last, since = starts[-1]
    if len(starts) == 1:  # Retention may have removed the events.
        last = next((stage for stage in reversed(STAGES) if stage in seconds), last)
    is_over = attempt.ended_at is not None
    has_finished = attempt.outcome == "succeeded" or attempt.error_code == GateMissed.code
    return [
        StageTime(
            stage,
            seconds.get(stage),
            running_since=since if stage == last and not is_over else None,
            is_cut_short=stage == last and is_over and not has_finished,
        )
        for stage in STAGES
    ]


def _added_up(starts: Sequence[tuple[str, datetime]], end: datetime) -> Mapping[str, float]:
    """Return the seconds of each stage: it lasts until the next begins, and may begin more than once."""
    seconds: dict[str, float] = {}
    ends = [at for _, at in starts[1:]] + [end]
    for (stage, at), until in zip(starts, ends, strict=True):
        seconds[stage] = seconds.get(stage, 0.0) + max((until - at).total_seconds(), 0.0)
    return seconds
