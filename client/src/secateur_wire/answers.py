"""Answers of the dense and the pruned model to the same questions: their figures, and the texts."""

from typing import Literal

from pydantic import Field, JsonValue

from secateur_wire.base import Number, Record

AnswerBand = Literal["still answers", "answers change", "no longer answers"]
"""Ratings of a pruned model's answers against the dense model's, the best first."""


class PairedFigure(Record):
    """Means over the same questions; `stderr` is the standard error of pruned − dense, each question compared with
    itself, None for too few questions.
    """

    dense: Number
    pruned: Number
    stderr: Number | None = None

    @property
    def change(self) -> float:
        """Return pruned minus dense."""
        return self.pruned - self.dense


class PairedLength(PairedFigure):
    """Mean numbers of tokens, counted in the dense model's tokens; `ratio` is pruned over dense, None where the dense
    model wrote nothing.
    """

    ratio: Number | None = None
    ratio_stderr: Number | None = None

    @property
    def factor(self) -> float | None:
        """Return by what factor the lengths differ: the ratio, or its inverse where that is larger; None if unknown."""
        if not self.ratio:
            return None
        return max(self.ratio, 1 / self.ratio)


class Score(PairedFigure):
    """Share of answers that pass a check against a reference, over the `questions` that have one."""

    questions: int


class WrittenAnswers(Record):
    """Figures of the answers that both models wrote greedily.

    `length` is that of the answers without their thoughts. `cut_off` is the share that did not end within the limit.
    `repetition` is the mean share of an answer's sequences of four tokens that occur earlier in it.
    """

    length: PairedLength
    cut_off: PairedFigure
    repetition: PairedFigure
    score: Score | None = None


class ThoughtFigures(Record):
    """Thoughts (`<think>` … `</think>`) of greedy answers: lengths, and the share that did not end within the limit.

    `kl` is that of the thoughts' tokens, `answer_kl` that of the answers after them; None where there are none.
    """

    length: PairedLength
    unfinished: PairedFigure
    kl: Number | None = None
    kl_stderr: Number | None = None
    answer_kl: Number | None = None
    answer_kl_stderr: Number | None = None


class AnswerFigures(Record):
    """Comparison of answers to the `questions` of one set, each of at most `max_new_tokens` tokens.

    Along the dense model's own greedy answers, `kl` is the mean of KL(dense‖pruned) in nats over the `predictions` of a
    next token, and `top_1` the share at which both models' likeliest tokens are equal. `first_token` and `identical`
    are shares of greedy answers that begin with the same token, and that are equal as a whole. Standard errors are over
    questions. `kept_tokens` is the share of the dense model's tokens that are left in the pruned model's vocabulary,
    over which `kl` is then taken; None where the vocabularies are equal.
    """

    questions: int
    max_new_tokens: int
    kl: Number | None = None
    kl_stderr: Number | None = None
    predictions: int = 0
    top_1: Number | None = None
    top_1_stderr: Number | None = None
    first_token: Number
    first_token_stderr: Number | None = None
    identical: Number
    identical_stderr: Number | None = None
    kept_tokens: Number | None = Field(None, exclude_if=lambda share: share is None)
    greedy: WrittenAnswers
    thoughts: ThoughtFigures | None = None

    @property
    def length(self) -> PairedLength:
        """Return the length of the greedy answers."""
        return self.greedy.length

    @property
    def score(self) -> Score | None:
        """Return the score of the greedy answers; None without references."""
        return self.greedy.score


class Answer(Record):
    """Answer of a model: its text, the thought before it if it thinks, and its tokens with the thought's.

    `ended`: the model ended it within the limit. `passed`: it passed the check, None without one.
    """

    text: str
    thought: str | None = Field(None, exclude_if=lambda thought: thought is None)
    tokens: int
    ended: bool
    passed: bool | None = None


class ComparedAnswer(Record):
    """Question with the greedy answers of both models.

    `question` is the text that the models were given; `kl` is that of this answer.
    """

    question: str
    line: int | None = None
    reference: JsonValue = None
    check: str | None = None
    kl: Number | None = None
    dense: Answer
    pruned: Answer
