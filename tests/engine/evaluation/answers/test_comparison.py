"""Answers of two models to the same questions, compared: means with paired errors, and thoughts apart from answers."""

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.engine.datasets.chat.conversations import Frame
from core.engine.datasets.chat.template import ChatTemplate, TemplateRenderer
from core.engine.evaluation.answers.answerer import Written
from core.engine.evaluation.answers.comparison import AnswerComparison
from core.engine.evaluation.answers.figures import Along, AnswerPair, ReadAnswer, answer_figures, mean_over
from core.engine.evaluation.answers.questions import EvaluationQuestion
from core.engine.evaluation.answers.thoughts import split_thought, without_marks
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import load_model
from core.engine.vocabulary.files import write_tokenizer
from core.engine.vocabulary.rows import write_reduced
from tests.chat import TEMPLATE
from tests.sources.conftest import write_wordy_model

CPU = torch.device("cpu")
FRAME: Frame = TemplateRenderer(ChatTemplate(TEMPLATE)).frame()
MOST = 10
LIVELY = {"initializer_range": 0.4}
"""Weights with which a random model writes different words."""
QUESTIONS = [EvaluationQuestion(number, f"w4 w{number} w{number + 9} w2 w5 ") for number in range(10, 20)]
QUESTIONS.append(EvaluationQuestion(20, "w30 w31 w32", is_chat=False))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return open_model(write_wordy_model(tmp_path_factory.mktemp("models") / "dense", seed=3, **LIVELY))


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return open_model(write_wordy_model(tmp_path_factory.mktemp("models") / "pruned", seed=1, **LIVELY))


def compare(models: tuple[ModelFolder, ModelFolder], *, at_once: int = 4) -> list[AnswerPair]:
    comparison = AnswerComparison(models, QUESTIONS, frame=FRAME, most=MOST, at_once=at_once, device=CPU)
    answers: list[list[Written]] = []
    states: list[dict[str, Tensor]] = []
    known: dict[int, Written] = {}
    for number, batch in enumerate(comparison.batches):
        written, hidden = comparison.answer(number, known)
        if not batch.model:
            known |= dict(zip(batch.numbers, written, strict=True))
        answers.append(written)
        states.append(hidden)
    return comparison.pairs(answers, lambda number: states[number])


@torch.inference_mode()
def test_the_divergence_is_that_of_all_logits_along_the_likeliest_tokens(
    dense: ModelFolder, pruned: ModelFolder
) -> None:
    models = [load_model(each, CPU, dtype=torch.float32) for each in (dense, pruned)]
    for pair in compare((dense, pruned)):
        given = [int(word[1:]) for word in pair.question.text.split()]
        ids = [*given]
        while (
            len(ids) < len(given) + MOST and (token := int(models[0](torch.tensor([ids])).logits[0, -1].argmax())) != 2
        ):
            ids.append(token)
        ended = len(ids) < len(given) + MOST
        assert pair.greedy[0].tokens == ids[len(given) :] and pair.greedy[0].ended == ended
        both = [each(torch.tensor([ids])).logits[0, len(given) - 1 :].log_softmax(-1) for each in models]
        both = [each[: len(ids) - len(given) + ended] for each in both]
        expected = (both[0].exp() * (both[0] - both[1])).sum(-1)
        assert pair.along.kl == pytest.approx(expected.tolist(), abs=1e-5)
        assert pair.along.same == (both[0].argmax(-1) == both[1].argmax(-1)).double().tolist()


def test_the_number_of_questions_at_once_changes_no_answer(dense: ModelFolder, pruned: ModelFolder) -> None:
    first, alone = (compare((dense, pruned), at_once=at_once) for at_once in (4, 1))
    assert [each.greedy for each in first] == [each.greedy for each in alone]


def tokens_of(pairs: Sequence[AnswerPair], place: int) -> list[Sequence[int]]:
    return [each.greedy[place].tokens for each in pairs]


def test_with_fewer_tokens_the_divergence_is_over_those_that_stay_and_the_rest_is_compared_as_text(
    dense: ModelFolder, tmp_path: Path
) -> None:
    later = {token for ids in tokens_of(compare((dense, dense)), 0) for token in ids[3:]}
    gone = {token for token in later if token > 32}  # no question has them
    kept = sorted({*range(96)} - gone)
    target = tmp_path / "reduced"
    target.mkdir()
    write_tokenizer(dense.path, target, kept, size=dense.description.vocabulary_size)
    reduced = write_reduced(dense, kept, target)
    pairs = compare((dense, reduced))
    figures = answer_figures(pairs, MOST, lambda *_: True)
    assert figures.kl == pytest.approx(0.0, abs=1e-6), "the same model, over the tokens that are left"
    assert figures.kept_tokens is not None and 0 < figures.kept_tokens < 1
    for each in pairs:
        followed = next((place for place, token in enumerate(each.greedy[0].tokens) if token not in kept), None)
        if followed is None:
            assert each.greedy[0].text == each.greedy[1].text and each.greedy[0].tokens == each.greedy[1].tokens
        else:
            assert len(each.along.kl) == followed + 1 and each.along.same[-1] == 0.0


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
