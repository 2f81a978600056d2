"""Estimates of a job's needs, by a formula and what earlier jobs needed; and the check that a worker fits.

The formula's memory is an upper bound. It orders workers, and no job is refused by it: a job that it keeps from every
worker is tried on the largest one. A job is refused where weights that must be in memory at once fit no worker.

For each figure, the formula's result is multiplied by the median of measured ÷ formula over the jobs of the same queue
and method that ran to their end last, whether or not they missed a gate there, and resemble this one most. With fewer
than three of them the formula stands alone, but for the time: that is corrected by the queue's jobs of any method, or
else by the pace that its workers measured.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from sqlalchemy import ARRAY, Double, String, bindparam, func, or_, select, true
from sqlalchemy.orm import Session

from core.device_kinds import DeviceKind, fastest_kind, find_kind
from core.engine.evaluation.forward_memory import ReloadRoom
from core.engine.evaluation.zero_shot_tasks import forward_tokens
from core.methods.registry import METHODS
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.admission import Room, needs_by, room_of
from core.service.jobs.engines import require_engines
from core.service.jobs.estimates.compute import ImageCounts, Tokens, classifier_cost, compute_cost
from core.service.jobs.estimates.corrections import FEWEST, HISTORY, newest_of_method, ran_to_its_end
from core.service.jobs.estimates.resources import (
    FIGURES,
    ResourceEstimate,
    classifier_needs,
    estimate_resources,
    least_memory,
)
from core.service.jobs.queue import workers_of
from core.service.jobs.resolution.job import ResolvedJob
from core.service.jobs.submit_warnings import warnings_for
from core.service.jobs.tables import AttemptRow, JobRow, WorkerRow
from core.service.registry.service import find_row
from core.service.registry.tables import DatasetRow
from core.service.sources.references import AnsweredText, SelfText
from core.settings import Settings
from secateur_wire.errors import DoesNotFit, GateMissed
from secateur_wire.jobs import Estimate, EstimateBasis, SecondsFrom

_NEAREST = 20
_CHARACTERS_PER_TOKEN = 4
_QUESTION_TOKENS = 64
"""Tokens of a question with the words of a chat template: assumed."""
_QUESTIONS = 1000
"""Questions of a set of which all are asked: assumed."""
_FARTHEST: Final = 30.0
"""Largest ratio between the formula's seconds of two jobs up to which one tells something about the other."""
_METHOD_DEVIATION: Final = 0.5
"""Deviation of ln(measured / formula) between methods: assumed."""
_PACE_DEVIATION: Final = 0.7
"""Deviation of ln(measured / formula) at a measured pace: assumed."""


@dataclass(frozen=True)
class FittingEstimate:
    """Estimate of a request that can be run, and the fresh workers of its queue."""

    estimate: Estimate
    workers: Sequence[WorkerRow]


def estimate_that_fits(session: Session, team_id: str, resolved: ResolvedJob, settings: Settings) -> FittingEstimate:
    """Return the estimate of a request that can be run. The time is for one attempt, from fetch to store.

    Raises DoesNotFit, with the figures, where none of these has room for the files, or for the weights that must be in
    memory at once, and InvalidRequest where none has the engine of an added form. Where there is no worker nothing is
    known, and the job may wait for one. A figure that a worker does not tell excludes nothing.
    """
    job = resolved.recipe
    workers = workers_of(session, [job.queue], settings.worker_fresh_seconds)
    require_engines(job, workers)
    account = _ACCOUNTS[resolved.model.description.task](session, team_id, resolved, workers, settings)
    estimate = _estimate(session, job, account, workers)
    needs = needs_by(estimate)
    on_device = needs.device_memory_bytes is not None
    floor = Room(account.least if on_device else None, None if on_device else account.least, needs.disk_bytes)
    if shortages := _shortages(floor, workers):
        raise DoesNotFit(
            f"no worker of queue {job.queue!r} can hold this job: {shortages}. Use a queue with larger workers, or a "
            "smaller model",
            param="queue",
        )
    if shortages := _shortages(needs, workers):
        wait = f"{settings.admission_max_wait_seconds:.0f} s"
        warning = f"memory: {shortages}. This is an upper bound: after {wait} the largest worker tries the job"
        estimate = estimate.model_copy(update={"warnings": [*estimate.warnings, warning]})
    return FittingEstimate(estimate, workers)


def _shortages(needs: Room, workers: Sequence[WorkerRow]) -> str | None:
    """Return sentences about what each worker lacks; None where there is one without a lack, or no worker at all."""
    shortages = [needs.lack(worker) for worker in workers]
    return "; ".join(sorted(set(filter(None, shortages)))[:5]) if all(shortages) and shortages else None


def _estimate(session: Session, job: Recipe, account: "_Account", workers: Sequence[WorkerRow]) -> Estimate:
    formula = account.formula
    ratios, jobs = _fleet_ratios(session, job, formula)
    factors = {name: statistics.median(each) for name, each in ratios.items()}
    expected = {
        name: None if value is None else type(value)(value * factors.get(name, 1.0))
        for name, value in formula.model_dump().items()
    }
    corrected = formula.seconds * factors.get("seconds", 1.0)
    time = _time(session, job, account, corrected, ratios.get("seconds"))
    return Estimate(
        **{**expected, "seconds": time.seconds},
        forward_tokens=account.passes,
        floating_point_operations=account.operations,
        warnings=warnings_for(job, {worker.device for worker in workers}),
        basis=EstimateBasis(
            jobs=jobs, formula=formula.model_dump(), seconds_deviation=time.deviation, seconds_from=time.source
        ),
    )


@dataclass(frozen=True)
class _Time:
    """Expected seconds of an attempt, the standard deviation of their logarithm, and what they are known from."""

    seconds: float
    deviation: float | None
    source: SecondsFrom


def _time(
    session: Session, job: Recipe, account: "_Account", corrected: float, own_ratios: Sequence[float] | None
) -> _Time:
    """Return the time by the best record there is.

    `corrected` are the seconds by jobs of the same method, whose measured ÷ formula are `own_ratios`; None for too few.
    """
    if own_ratios is not None:
        return _Time(corrected, statistics.stdev(map(math.log, own_ratios)), "jobs")
    others = _ratios_of_any_method(session, job.queue, account.formula.seconds)
    if others:
        logarithms = [math.log(each) for each in others]
        spread = statistics.stdev(logarithms) if len(logarithms) > 1 else 0.0
        deviation = math.hypot(max(spread, _METHOD_DEVIATION), _METHOD_DEVIATION / math.sqrt(len(others)))
        return _Time(account.formula.seconds * statistics.median(others), deviation, "jobs_of_other_methods")
    if account.paced_seconds is not None:
        return _Time(account.paced_seconds, _PACE_DEVIATION, "pace")
    return _Time(account.formula.seconds, None, "formula")


@dataclass(frozen=True)
class _Account:
    """Needs of a job, before they are compared with the needs of earlier jobs.

    `least` are the bytes of weights that must be in memory at once. `passes` are the tokens, or images, that go through
    the model. `paced_seconds` are the formula's seconds at the pace that the workers measured; None where none did.
    """

    formula: ResourceEstimate
    least: int
    passes: int
    operations: int
    paced_seconds: float | None = None


def _language_account(
    session: Session, team_id: str, resolved: ResolvedJob, workers: Sequence[WorkerRow], settings: Settings
) -> _Account:
    job, description = resolved.recipe, resolved.model.description.language_model
    device, budget = fastest_kind(worker.device for worker in workers), settings.activation_budget_bytes
    tokens = _tokens(session, team_id, job, _unwritten_tokens(session, team_id, resolved.sources))
    work = compute_cost(description, job, tokens, device)
    estimated = partial(
        estimate_resources,
        description,
        job,
        tokens,
        device=device,
        activation_budget_bytes=budget,
        is_fetched=resolved.is_fetched,
        rooms=[reload_room(worker, device) for worker in workers],
    )
    paced = _paced(device, workers)
    seconds = None if paced is None else estimated(device=paced).seconds
    return _Account(estimated(), least_memory(description, job), work.passes, work.operations, seconds)


def _classifier_account(
    session: Session, team_id: str, resolved: ResolvedJob, workers: Sequence[WorkerRow], settings: Settings
) -> _Account:
    job, description = resolved.recipe, resolved.model.description.classifier
    counts = _images(session, team_id, job)
    work = classifier_cost(description, job, counts)
    device = fastest_kind(worker.device for worker in workers)
    needs = partial(classifier_needs, description, job, counts, is_fetched=resolved.is_fetched)
    paced = _paced(device, workers)
    seconds = None if paced is None else needs(device=paced).seconds
    return _Account(needs(device=device), description.bytes, work.passes, work.operations, seconds)


def _paced(device: DeviceKind, workers: Sequence[WorkerRow]) -> DeviceKind | None:
    """Return the kind of device at the median pace that workers with such devices measured; None where none did."""
    paces = [
        each.operations_per_second
        for each in workers
        if each.operations_per_second is not None and find_kind(each.device) is device
    ]
    return replace(device, operations_per_second=statistics.median(paces)) if paces else None


_ACCOUNTS: Final[Mapping[str, Callable[[Session, str, ResolvedJob, Sequence[WorkerRow], Settings], _Account]]] = {
    "language-model": _language_account,
    "image-classification": _classifier_account,
}
"""Accounts by the model's task."""


def reload_room(worker: WorkerRow, device: DeviceKind) -> ReloadRoom:
    """Return the room that a worker says it has, without what a process takes that has loaded the engine."""

    def left(there: int | None, taken: int | None) -> int | None:
        return None if there is None or taken is None else there - taken

    room = room_of(worker)
    return ReloadRoom(
        memory=left(room.memory_bytes, device.process_bytes),
        device_memory=left(room.device_memory_bytes, device.context_bytes),
    )


_METHOD_IDS = select(func.unnest(bindparam("methods", type_=ARRAY(String))).label("method")).subquery()
_NEWEST_OF_METHOD = (
    select(
        AttemptRow.needs["basis"]["formula"]["seconds"].as_float().label("formula"),
        AttemptRow.measured["seconds"].as_float().label("taken"),
    )
    .where(
        AttemptRow.queue == bindparam("queue"),
        AttemptRow.method == _METHOD_IDS.c.method,
        ran_to_its_end(),
        AttemptRow.needs.is_not(None),
    )
    .order_by(AttemptRow.ended_at.desc())
    .limit(FEWEST)
    .lateral()
)
_OF_ANY_METHOD = select(_NEWEST_OF_METHOD.c.formula, _NEWEST_OF_METHOD.c.taken).select_from(
    _METHOD_IDS.join(_NEWEST_OF_METHOD, true())
)
"""The newest attempts of each method of a queue: one look into the index for each of them."""
_NEWEST = newest_of_method(
    AttemptRow.needs["basis"]["formula"].label("formula"), AttemptRow.measured, AttemptRow.ended_at
)
_NEAREST_ATTEMPTS = (
    select(_NEWEST.c.formula, _NEWEST.c.measured)
    .order_by(
        func.abs(func.ln(_NEWEST.c.formula["seconds"].as_float() / bindparam("seconds", type_=Double))),
        _NEWEST.c.ended_at.desc(),
    )
    .limit(_NEAREST)
)


def _ratios_of_any_method(session: Session, queue: str, formula_seconds: float) -> list[float]:
    """Return measured ÷ formula of the seconds of the queue's newest jobs, whatever their methods.

    Jobs of a formula more than `_FARTHEST` times longer or shorter are left out.
    """
    past = session.execute(_OF_ANY_METHOD, {"queue": queue, "methods": list(METHODS)})
    return [
        taken / said for said, taken in past if said and taken and 1 / _FARTHEST <= said / formula_seconds <= _FARTHEST
    ]


def _fleet_ratios(session: Session, job: Recipe, formula: ResourceEstimate) -> tuple[dict[str, list[float]], int]:
    """Return for each figure measured ÷ formula of the nearest jobs, where enough have it, and how many there were.

    The database picks these, so that a submission reads no more of the history than it uses.
    """
    job_facts = {"queue": job.queue, "method": job.method, "seconds": formula.seconds}
    nearest = session.execute(_NEAREST_ATTEMPTS, job_facts).all()
    ratios = {
        name: [taken[name] / said[name] for said, taken in nearest if said.get(name) and taken.get(name)]
        for name in FIGURES
    }
    enough = {name: each for name, each in ratios.items() if len(each) >= FEWEST}
    return enough, len(nearest) if enough else 0


def _tokens(session: Session, team_id: str, job: Recipe, own_text: int) -> Tokens:
    """Return the job's tokens; for all of a text, about as many as its characters. `own_text`: still to generate."""

    def of(dataset: str, samples: int | None, length: int) -> int:
        if samples is not None:
            return samples * length
        row = find_row(session, DatasetRow, team_id, dataset)
        return row.characters // _CHARACTERS_PER_TOKEN if row else 0

    calibration, evaluation = job.calibration, job.evaluation
    length = evaluation.sequence_length or 0
    answers = evaluation.answers
    questions = 0
    if answers is not None:
        questions = len(answers.datasets) * (answers.samples or _QUESTIONS)
    generated = (calibration.generated or 0) * (calibration.sequence_length or 0) if calibration else 0
    return Tokens(
        calibration=of(calibration.dataset, calibration.samples, calibration.sequence_length or 0) + generated
        if calibration
        else 0,
        evaluation=sum(of(name, evaluation.samples, length) for name in evaluation.datasets),
        window=(calibration.sequence_length if calibration else None) or length,
        tasks=forward_tokens(evaluation.tasks, evaluation.task_limit, evaluation.num_fewshot),
        prompts=sum(map(len, evaluation.prompts)) // _CHARACTERS_PER_TOKEN,
        written=len(evaluation.prompts) * evaluation.prompt_tokens,
        own_text=own_text,
        questions=questions * _QUESTION_TOKENS,
        answered=0 if answers is None else questions * answers.max_new_tokens,
    )


def _unwritten_tokens(session: Session, team_id: str, sources: Mapping[str, Any]) -> int:
    """Return the tokens of the texts that the model has to generate first.

    A text is there already where one of the team's newest jobs of the same model that ran to their end used it.
    """
    missing = _own_texts(sources)
    if not missing:
        return 0
    ended = or_(JobRow.status == "succeeded", JobRow.error["code"].astext == GateMissed.code)
    done = select(JobRow.sources).where(JobRow.team_id == team_id, ended)
    for past in session.scalars(done.order_by(JobRow.created_at.desc()).limit(HISTORY)):
        if past.get("model") == sources["model"]:
            missing -= _own_texts(past)
    return sum(text.samples * text.sequence_length for text in missing)


def _own_texts(sources: Mapping[str, Any]) -> set[SelfText | AnsweredText]:
    texts = [sources.get(name) for name in ("calibration", "generated", "own_text")]
    texts += [*(sources.get("evaluation") or []), *(sources.get("recovery") or [])]
    kinds: dict[str, type[SelfText | AnsweredText]] = {"self": SelfText, "answered": AnsweredText}
    return {kinds[text["kind"]].model_validate(text) for text in texts if text and text["kind"] in kinds}


def _images(session: Session, team_id: str, job: Recipe) -> ImageCounts:
    """Return the job's images; for all of a set, as many as it has."""

    def of(dataset: str, samples: int | None) -> int:
        row = find_row(session, DatasetRow, team_id, dataset)
        there = (row.images or 0) if row else 0
        return there if samples is None else samples

    calibration, evaluation = job.calibration, job.evaluation
    return ImageCounts(
        calibration=of(calibration.dataset, calibration.samples) if calibration else 0,
        evaluation=sum(of(name, evaluation.samples) for name in evaluation.datasets),
    )
