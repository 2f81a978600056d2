"""Answers in plans: whether the model is expected to still answer, by the team's own jobs that compared answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.engine.datasets.formats import CHAT_FORMATS
from core.pipeline.reports.verdict import band_of_kl
from core.service.jobs.service import job_answer
from core.service.jobs.tables import SHORT_ROW, JobRow
from core.service.plans.evidence import Question
from core.service.plans.figures import LossEstimates
from core.service.plans.outcomes import Outcome
from secateur_wire.answers import AnswerBand
from secateur_wire.base import JsonObject
from secateur_wire.datasets import Dataset
from secateur_wire.plans import PlanChoice, PlanFigure

NO_LONGER: Final[AnswerBand] = "no longer answers"
_SENTENCES: Final[dict[AnswerBand, str]] = {
    "still answers": "it still answers",
    "answers change": "its answers change",
    "no longer answers": "it no longer answers",
}


@dataclass(frozen=True)
class EarlierQuestions:
    """Comparison of answers that a job of the team asked for: the job's id, and the fields of its body."""

    job: str
    answers: JsonObject

    @property
    def sets(self) -> list[str]:
        """Return the names of the sets of questions."""
        datasets = self.answers["datasets"]
        assert isinstance(datasets, list)
        return [str(each) for each in datasets]

    @property
    def choice(self) -> PlanChoice:
        """Return the choice of a plan that asks the same questions."""
        why = f"{self.job} compared answers to these questions, so that this job can be compared with it"
        return PlanChoice(field="evaluation.answers.datasets", value=self.sets, reason=why)


def earlier_questions(
    session: Session,
    team_id: str,
    revision: str,
    datasets: Sequence[Dataset],
    calibrated_on: str | None,
    until: datetime | None = None,
) -> EarlierQuestions | None:
    """Return the questions that the team's newest job on a model compared answers to.

    Questions of sets that are no longer registered, or that a plan calibrates on, are left out. None without any. With
    `until`, only jobs that had ended by then are read.
    """
    registered = {each.name for each in datasets} - {calibrated_on}
    query = (
        select(JobRow)
        .options(*SHORT_ROW)
        .where(JobRow.team_id == team_id, JobRow.model_revision == revision, JobRow.metrics.is_not(None))
        .where(JobRow.metrics["answers"].is_not(None))
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(10)
    )
    if until is not None:
        query = query.where(JobRow.finished_at < until)
    for row in session.scalars(query):
        job = job_answer(row)
        earlier = job.evaluation and job.evaluation.answers
        if earlier and job.measured.answers and registered.issuperset(earlier.datasets):
            return EarlierQuestions(row.id, earlier.model_dump(mode="json", exclude_defaults=True))
    return None


def answer_estimates(
    question: Question, own: Sequence[Outcome], earlier: EarlierQuestions | None, lost: float
) -> LossEstimates:
    """Return the estimates of KL a token along the dense answers, on the first of the earlier sets of questions."""
    known = [replace(each, excess=each.answers, unrecovered={}, deviation=None) for each in own]
    on = replace(question, evaluation=None if earlier is None else earlier.sets[0])
    return LossEstimates.of(on, known, [], lost)


def expected_answers(figure: PlanFigure | None) -> AnswerBand | None:
    """Return the expected verdict on answers; None where no job compared any."""
    return None if figure is None else band_of_kl(figure.estimate)


def sentence_on_answers(figure: PlanFigure | None) -> str:
    """Return what is expected of the answers, in a sentence; empty where no job compared any."""
    band = expected_answers(figure)
    if figure is None or band is None:
        return ""
    return (
        f"By {figure.basis}, {_SENTENCES[band]}: KL {figure.estimate:.2g} nats a token along the dense answers "
        f"({figure.low:.2g} to {figure.high:.2g})."
    )


def unknown_answers(
    figure: PlanFigure | None, datasets: Sequence[Dataset], earlier: EarlierQuestions | None
) -> list[str]:
    """Return that it is not known whether the model will answer, where the team has conversations to ask."""
    chats = [each.name for each in datasets if each.format in CHAT_FORMATS]
    if figure is not None or not chats:
        return []
    by_naming = f'name "{chats[0]}" in evaluation.answers'
    what = by_naming if earlier is None else "nor do the jobs that compared any tell"
    return [f"answer_kl: no job of this team compared answers after such a removal from a model like this; {what}"]
