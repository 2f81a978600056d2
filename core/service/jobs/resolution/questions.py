"""Resolution of the sets of questions whose answers a job compares."""

from dataclasses import dataclass
from typing import Final

from core.engine.architectures.description import ModelDescription
from core.engine.datasets.checks import CHECKS
from core.service.jobs.resolution.context import RequestContext, unique_names
from core.service.jobs.resolution.dataset import SELF, resolve_dataset
from core.service.jobs.resolution.text_needs import TextNeeds
from core.service.sources.references import SelfText, TextReference
from core.validation import nearest_hint
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import AnswerEvaluation

_PART: Final = "evaluation.answers"
_QUESTION_LENGTH: Final = 2
"""Tokens of a text that a question needs at least."""


@dataclass(frozen=True)
class QuestionNeeds(TextNeeds):
    """Requirements of a set of questions; a text gives the beginnings of its documents."""

    def refer_to_model(self) -> SelfText:
        raise InvalidRequest(
            f"{self.param}: {SELF!r} is text that the model writes, and questions of its own say little about the "
            "questions of users: name a set of conversations, of prompts or a text",
            param=self.param,
        )


def resolve_question_sets(
    context: RequestContext, answers: AnswerEvaluation | None, description: ModelDescription
) -> list[TextReference]:
    """Return the sets of questions whose answers are compared; raises InvalidRequest for what cannot be."""
    if answers is None:
        return []
    if answers.check is not None and answers.check not in CHECKS:
        raise InvalidRequest(
            f"{_PART}.check: there is no check {answers.check!r}; the checks are {', '.join(CHECKS)}"
            f"{nearest_hint(answers.check, CHECKS)}",
            param=f"{_PART}.check",
        )
    most = description.context_length - 2
    if answers.max_new_tokens > most:
        raise InvalidRequest(
            f"{_PART}.max_new_tokens: answers of {answers.max_new_tokens} tokens leave no room for a question in the "
            f"model's context of {description.context_length}: ask for at most {most}",
            param=f"{_PART}.max_new_tokens",
        )
    return [
        resolve_dataset(context, name, QuestionNeeds("evaluation", param, answers.samples, _QUESTION_LENGTH))
        for param, name in unique_names(answers.datasets, f"{_PART}.datasets")
    ]
