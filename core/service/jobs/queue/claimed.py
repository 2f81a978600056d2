"""Claimed jobs: a row, parsed into what the worker runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Row

from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.dense_figures import KnownDenseFigures
from core.service.sources.references import (
    ImageReference,
    ModelReference,
    TaskReference,
    TextReference,
    image_references,
    model_references,
    text_references,
)


@dataclass(frozen=True)
class ClaimedImages:
    """Images for calibration, training and evaluation of a job on a classifier."""

    calibration: ImageReference | None
    recovery: ImageReference | None
    evaluation: tuple[ImageReference, ...]


@dataclass(frozen=True)
class Claim:
    """Job that a worker has claimed. `body` is its recipe as stored in the row; the artifact's manifest repeats it.

    `generated` is calibration text that the model generates in addition to `calibration`. `own_text` is training text
    that the teacher generates. `vocabulary` has the texts whose tokens are counted, and `answers` the sets of
    questions. `recovery` has the training texts, and is empty where nothing is trained. `images` replaces all texts for
    an image classifier. `baseline` has figures of the dense model from earlier jobs. `previous_attempts` are newest
    first.
    """

    job_id: str
    attempt: int
    worker_id: str
    team_id: str
    method: str
    body: dict[str, Any]
    model: ModelReference
    calibration: TextReference | None
    generated: TextReference | None
    own_text: TextReference | None
    vocabulary: tuple[TextReference, ...]
    evaluation: tuple[TextReference, ...]
    answers: tuple[TextReference, ...]
    tasks: tuple[TaskReference, ...]
    recovery: tuple[TextReference, ...]
    teacher: ModelReference | None
    images: ClaimedImages | None
    baseline: KnownDenseFigures | None
    previous_attempts: tuple[int, ...]
    estimate: dict[str, Any] | None
    request_id: str | None
    traceparent: str | None

    @cached_property
    def recipe(self) -> Recipe:
        """Return the recipe of the job.

        Raises InvalidRequest where this release cannot run it: the attempt then fails.
        """
        return Recipe.load(self.body)


def claim_of(row: Row[Any]) -> Claim:
    """Return the claim for the row of a job that was just claimed."""
    sources = row.sources
    calibration, generated, own_text, teacher = (
        sources.get(name) for name in ("calibration", "generated", "own_text", "teacher")
    )
    return Claim(
        job_id=row.id,
        attempt=row.attempt,
        worker_id=row.worker_id,
        team_id=row.team_id,
        method=row.method,
        body=row.body,
        model=model_references.validate_python(sources["model"]),
        calibration=None if calibration is None else text_references.validate_python(calibration),
        generated=None if generated is None else text_references.validate_python(generated),
        own_text=None if own_text is None else text_references.validate_python(own_text),
        vocabulary=tuple(text_references.validate_python(source) for source in sources.get("vocabulary", ())),
        evaluation=tuple(text_references.validate_python(source) for source in sources.get("evaluation", ())),
        answers=tuple(text_references.validate_python(source) for source in sources.get("answers", ())),
        tasks=tuple(TaskReference.model_validate(task) for task in sources.get("tasks", ())),
        recovery=tuple(text_references.validate_python(source) for source in sources.get("recovery", ())),
        teacher=None if teacher is None else model_references.validate_python(teacher),
        images=_claimed_images(sources.get("images")),
        baseline=None if sources.get("baseline") is None else KnownDenseFigures.model_validate(sources["baseline"]),
        previous_attempts=tuple(range(row.attempt - 1, 0, -1)),
        request_id=row.request_id,
        traceparent=row.traceparent,
        estimate=row.estimate,
    )


def _claimed_images(sources: Mapping[str, Any] | None) -> ClaimedImages | None:
    if sources is None:
        return None
    calibration, recovery = (
        None if sources[name] is None else image_references.validate_python(sources[name])
        for name in ("calibration", "recovery")
    )
    evaluation = tuple(image_references.validate_python(source) for source in sources["evaluation"])
    return ClaimedImages(calibration, recovery, evaluation)
