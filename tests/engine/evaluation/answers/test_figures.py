"""Figures of compared answers: means with paired errors, repetition, and thoughts apart from answers."""

from math import sqrt
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.evaluation.answers.figures import Along, AnswerPair, ReadAnswer, answer_figures, mean_over
from core.engine.evaluation.answers.questions import EvaluationQuestion
from core.engine.evaluation.answers.thoughts import split_thought, without_marks

COUNTS = st.lists(st.tuples(st.floats(0, 9), st.integers(1, 50)), min_size=4, max_size=20)


def answer(length: int, *, text: str = "a", ended: bool = True, **thought: object) -> ReadAnswer:
    return ReadAnswer(text, list(range(length)), ended, **thought)  # type: ignore[arg-type]


def pair(dense: ReadAnswer, pruned: ReadAnswer, kl: list[float], thought: int = 0, reference: str = "") -> AnswerPair:
    question = EvaluationQuestion(1, "?", reference or None, "contains" if reference else None)
    return AnswerPair(question, (dense, pruned), Along(kl, [1.0] * len(kl), thought), True)


@given(COUNTS)
def test_the_error_of_a_mean_over_equal_counts_is_that_of_the_mean(rows: list[tuple[float, int]]) -> None:
    sums = [total for total, _ in rows]
    mean, error = mean_over(sums, [4] * len(sums))
    assert mean == pytest.approx(fmean(sums) / 4)
    assert error == pytest.approx(stdev(sums) / sqrt(len(sums)) / 4, abs=1e-12)


@given(COUNTS, st.floats(0.1, 9))
def test_what_is_the_same_for_each_token_has_no_error(rows: list[tuple[float, int]], each: float) -> None:
    counts = [count for _, count in rows]
    mean, error = mean_over([each * count for count in counts], counts)
    assert mean == pytest.approx(each) and error == pytest.approx(0, abs=1e-9)


def test_lengths_are_compared_over_all_tokens_and_scores_where_there_is_a_check() -> None:
    pairs = [
        pair(answer(10, text="yes"), answer(5, text="no", ended=False), [0.5] * 10, reference="yes"),
        pair(answer(30), answer(15), [0.1] * 30),
        pair(answer(20), answer(10), [0.1] * 20),
        pair(answer(4, text="b"), answer(4, text="b"), []),
    ]
    figures = answer_figures(pairs, 64, lambda check, text, reference: text == reference)
    assert figures.length.ratio == pytest.approx(34 / 64) and figures.kl == pytest.approx(10 / 60)
    assert figures.score is not None
    assert (figures.score.dense, figures.score.pruned, figures.score.questions) == (1.0, 0.0, 1)
    assert figures.greedy.cut_off.pruned == 0.25 and figures.identical == 0.75 and figures.thoughts is None


def test_thoughts_are_measured_apart_from_answers() -> None:
    dense = answer(4, thought="t", thought_tokens=6)
    pruned = answer(0, text="", thought="t", thought_tokens=12, thought_ended=False, ended=False)
    figures = answer_figures([pair(dense, pruned, [1.0] * 6 + [0.5] * 4, thought=6)] * 4, 12, lambda *_: True)
    thoughts = figures.thoughts
    assert thoughts is not None and figures.kl == pytest.approx(0.8)
    assert (thoughts.kl, thoughts.answer_kl, thoughts.length.ratio) == (1.0, 0.5, 2.0)
    assert thoughts.unfinished.pruned == 1.0 and figures.length.ratio == 0.0


WORDS = ["<think>", "so", "</think>", "it", "is", "4"]


@pytest.mark.parametrize(
    ("ids", "is_open", "expected"),
    [
        ([3, 4, 5], False, (0, False, True)),
        ([0, 1, 2, 3, 4, 5], False, (3, True, True)),
        ([1, 1, 2, 5], True, (3, True, True)),
        ([1, 2, 5], False, (2, True, True)),
        ([0, 1, 1], False, (3, True, False)),
        ([1, 1], True, (2, True, False)),
        ([], False, (0, False, True)),
    ],
    ids=["none", "whole", "opened by the template", "opened unseen", "unfinished", "unfinished, opened", "empty"],
)
def test_a_thought_ends_with_its_mark(ids: list[int], is_open: bool, expected: tuple[int, bool, bool]) -> None:
    split = split_thought(ids, lambda part: " ".join(WORDS[each] for each in part), is_open=is_open)
    assert (split.thought, split.has_thought, split.is_finished) == expected
    assert without_marks(" <think>\nso </think>") == "so"
