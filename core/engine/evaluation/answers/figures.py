"""Figures of the answers of two models to the same questions; all standard errors are over questions, paired."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Final

from pydantic import JsonValue

from core.engine.evaluation.answers.questions import EvaluationQuestion
from secateur_wire.answers import (
    Answer,
    AnswerFigures,
    ComparedAnswer,
    PairedFigure,
    PairedLength,
    Score,
    ThoughtFigures,
    WrittenAnswers,
)

FEWEST_QUESTIONS: Final = 4
"""Fewest questions for a meaningful standard error."""
_REPEATED: Final = 4
"""Tokens of the sequences that count as repeated (Welleck et al. 2020, arXiv:1908.04319, section 2: seq-rep-n)."""

_MOST_SHOWN: Final = 8_000
"""Most characters of a question or an answer in a report."""

Passes = Callable[[str, str, JsonValue], bool]
"""Judgement of an answer by a check: its name, the answer, and the reference."""


@dataclass(frozen=True)
class ReadAnswer:
    """Answer as it is compared: the texts of its thought (None without one) and of the rest, and the tokens of each.

    `ended`: the model ended it within the limit. `thought_ended` is False where the thought takes all of it.
    """

    text: str
    tokens: Sequence[int]
    ended: bool
    thought: str | None = None
    thought_tokens: int = 0
    thought_ended: bool = True


@dataclass(frozen=True)
class Along:
    """Divergence along the dense model's answer: KL of each prediction, and 1 where the likeliest tokens are equal.

    The first `thought` predictions are of the thought's tokens.
    """

    kl: Sequence[float]
    same: Sequence[float]
    thought: int = 0


@dataclass(frozen=True)
class AnswerPair:
    """Greedy answers of the dense and the pruned model to one question.

    `first_is_same`: they begin with the same token. `kept` is the number of the dense answer's tokens that the pruned
    model has too.
    """

    question: EvaluationQuestion
    greedy: tuple[ReadAnswer, ReadAnswer]
    along: Along
    first_is_same: bool
    kept: int | None = None


def answer_figures(pairs: Sequence[AnswerPair], max_new_tokens: int, passes: Passes) -> AnswerFigures:
    """Return the figures of one set's answers."""
    kl, kl_stderr = mean_over([sum(each.along.kl) for each in pairs], [len(each.along.kl) for each in pairs])
    top_1, top_1_stderr = mean_over([sum(each.along.same) for each in pairs], [len(each.along.same) for each in pairs])
    first, first_stderr = _share([each.first_is_same for each in pairs])
    identical, identical_stderr = _share([_is_same(*each.greedy) for each in pairs])
    written = sum(len(each.greedy[0].tokens) + each.greedy[0].thought_tokens for each in pairs)
    kept = [each.kept for each in pairs if each.kept is not None]
    return AnswerFigures(
        questions=len(pairs),
        max_new_tokens=max_new_tokens,
        kl=kl,
        kl_stderr=kl_stderr,
        predictions=sum(len(each.along.kl) for each in pairs),
        top_1=top_1,
        top_1_stderr=top_1_stderr,
        first_token=first,
        first_token_stderr=first_stderr,
        identical=identical,
        identical_stderr=identical_stderr,
        kept_tokens=sum(kept) / written if kept and written else None,
        greedy=_written([(each.question, *each.greedy) for each in pairs], passes),
        thoughts=_thoughts(pairs),
    )


def compared_answers(pairs: Sequence[AnswerPair], passes: Passes) -> list[ComparedAnswer]:
    """Return the questions with their answers, for people to read."""

    def shown(question: EvaluationQuestion, answer: ReadAnswer) -> Answer:
        passed = None if question.check is None else passes(question.check, answer.text, question.reference)
        return Answer(
            text=_readable(answer.text),
            thought=None if answer.thought is None else _readable(answer.thought),
            tokens=len(answer.tokens) + answer.thought_tokens,
            ended=answer.ended,
            passed=passed,
        )

    return [
        ComparedAnswer(
            question=_readable(each.question.text),
            line=each.question.line,
            reference=each.question.reference,
            check=each.question.check,
            kl=fmean(each.along.kl) if each.along.kl else None,
            dense=shown(each.question, each.greedy[0]),
            pruned=shown(each.question, each.greedy[1]),
        )
        for each in pairs
    ]


def mean_over(sums: Sequence[float], counts: Sequence[float]) -> tuple[float | None, float | None]:
    """Return Σ sums ÷ Σ counts and its standard error over questions; None where there is nothing to divide by.

    Questions have different numbers of tokens, so that this is a ratio estimator: its standard error is that of the
    residuals sum − ratio · count (Cochran, Sampling Techniques, 1977, section 6.3).
    """
    total = sum(counts)
    if not total:
        return None, None
    ratio = sum(sums) / total
    if len(sums) < FEWEST_QUESTIONS:
        return ratio, None
    residuals = [each - ratio * count for each, count in zip(sums, counts, strict=True)]
    return ratio, sqrt(len(sums) / (len(sums) - 1) * sum(each**2 for each in residuals)) / total


def repetition(tokens: Sequence[int]) -> float:
    """Return the share of an answer's sequences of four tokens that occur earlier in it; 0 for a shorter answer."""
    sequences = [tuple(tokens[place : place + _REPEATED]) for place in range(len(tokens) - _REPEATED + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def _written(answers: Sequence[tuple[EvaluationQuestion, ReadAnswer, ReadAnswer]], passes: Passes) -> WrittenAnswers:
    def paired(of: Callable[[ReadAnswer], float]) -> PairedFigure:
        return _paired([(of(dense), of(pruned)) for _, dense, pruned in answers])

    checked = [
        tuple(float(passes(question.check, answer.text, question.reference)) for answer in (dense, pruned))
        for question, dense, pruned in answers
        if question.check is not None
    ]
    return WrittenAnswers(
        length=_length([(len(dense.tokens), len(pruned.tokens)) for _, dense, pruned in answers]),
        cut_off=paired(lambda answer: not answer.ended),
        repetition=paired(lambda answer: repetition(answer.tokens)),
        score=Score(**_paired([(dense, pruned) for dense, pruned in checked]).model_dump(), questions=len(checked))
        if checked
        else None,
    )


def _thoughts(pairs: Sequence[AnswerPair]) -> ThoughtFigures | None:
    greedy = [each.greedy for each in pairs]
    if all(answer.thought is None for pair in greedy for answer in pair):
        return None
    thought = [each.along.kl[: each.along.thought] for each in pairs]
    rest = [each.along.kl[each.along.thought :] for each in pairs]
    (kl, kl_stderr), (answer_kl, answer_stderr) = (
        mean_over([*map(sum, part)], [*map(len, part)]) for part in (thought, rest)
    )
    return ThoughtFigures(
        length=_length([(dense.thought_tokens, pruned.thought_tokens) for dense, pruned in greedy]),
        unfinished=_paired([(not dense.thought_ended, not pruned.thought_ended) for dense, pruned in greedy]),
        kl=kl,
        kl_stderr=kl_stderr,
        answer_kl=answer_kl,
        answer_kl_stderr=answer_stderr,
    )


def _is_same(dense: ReadAnswer, pruned: ReadAnswer) -> bool:
    return (dense.thought, dense.text, dense.ended) == (pruned.thought, pruned.text, pruned.ended)


def _share(values: Sequence[bool]) -> tuple[float, float | None]:
    return fmean(values), _stderr(values)


def _paired(values: Sequence[tuple[float, float]]) -> PairedFigure:
    return PairedFigure(
        dense=fmean(dense for dense, _ in values),
        pruned=fmean(pruned for _, pruned in values),
        stderr=_stderr([pruned - dense for dense, pruned in values]),
    )


def _length(values: Sequence[tuple[int, int]]) -> PairedLength:
    dense, pruned = zip(*values, strict=True)
    ratio, ratio_stderr = mean_over(pruned, dense)
    return PairedLength(**_paired(values).model_dump(), ratio=ratio, ratio_stderr=ratio_stderr)


def _stderr(values: Sequence[float]) -> float | None:
    return stdev(values) / sqrt(len(values)) if len(values) >= FEWEST_QUESTIONS else None


def _readable(text: str) -> str:
    """Return a text that databases store: NUL is replaced, and what is very long is cut."""
    cut = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} …"
    return cut.replace("\0", "\N{REPLACEMENT CHARACTER}")
