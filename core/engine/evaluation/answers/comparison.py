"""Comparison of two models' answers: the dense model answers first, then the other, and both along the dense answers.

Each model is in memory alone. Of each there stay its answers, and its hidden states along the dense model's greedy
answers, from which final norm and head give the predictions that are compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.counting import counted
from core.engine.datasets.chat.conversations import Frame
from core.engine.evaluation.answers.answerer import Answerer, Written
from core.engine.evaluation.answers.divergence import SharedTokens, divergences_along, shared_tokens
from core.engine.evaluation.answers.figures import Along, AnswerPair
from core.engine.evaluation.answers.questions import EvaluationQuestion
from core.engine.evaluation.answers.reading import AnswerReader
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import measuring_dtype
from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import DTYPES


@dataclass(frozen=True)
class Batch:
    """Questions `numbers` that one model answers together; `model` is 0 for the dense one, 1 for the pruned one."""

    model: int
    numbers: Sequence[int]


class AnswerComparison:
    """Comparison of the answers of `models`, dense and pruned, each of at most `most` tokens.

    Both answer the same `questions` greedily, in the same batches of at most `at_once`, so that equal models answer
    equally.
    """

    def __init__(
        self,
        models: tuple[ModelFolder, ModelFolder],
        questions: Sequence[EvaluationQuestion],
        *,
        frame: Frame | None,
        most: int,
        at_once: int,
        device: torch.device,
    ) -> None:
        self._models = models
        self._questions = questions
        self._frame = frame
        self._most = most
        self._device = device
        kinds = [[number for number, each in enumerate(questions) if each.is_chat is kind] for kind in (True, False)]
        parts = [each[start : start + at_once] for each in kinds for start in range(0, len(each), at_once)]
        self.batches = [Batch(model, part) for model in (0, 1) for part in parts]
        self._opened: dict[int, Answerer] = {}

    def answer(
        self,
        number: int,
        dense: Mapping[int, Written],
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> tuple[list[Written], dict[str, Tensor]]:
        """Answer the questions of a batch; return the answers, and the hidden states by the question's number.

        `dense` are the dense model's answers to the questions of a batch of the pruned model. `on_progress` is called
        with 0 to 1. Raises OutOfMemory and NotFiniteWeights.
        """
        batch = self.batches[number]
        answerer, questions = self._answerer(batch.model), [self._questions[each] for each in batch.numbers]
        written = answerer.greedy(questions, lambda step: on_progress(0.95 * step / self._most))
        states = {}
        for place, each in enumerate(batch.numbers):
            followed = dense[each] if batch.model else written[place]
            tokens, ended = self._followed(followed) if batch.model else (followed.tokens, followed.ended)
            if tokens or ended:
                states[str(each)] = answerer.states(self._questions[each], tokens, ended=ended)
        on_progress(1.0)
        return written, states

    def pairs(
        self, answers: Sequence[Sequence[Written]], states: Callable[[int], Mapping[str, Tensor]]
    ) -> list[AnswerPair]:
        """Return the compared answers of all questions; `states` returns the hidden states of a batch."""
        self._opened.clear()
        half = len(self.batches) // 2
        shared = self._shared
        readers = (
            AnswerReader(self._tokenizers[0]),
            AnswerReader(self._tokenizers[1], None if shared is None else self._tokenizers[0]),
        )
        vocabularies = len(self._tokenizers[0]), len(self._tokenizers[1])
        ends = [
            StreamedModel(folder, dtype=self._dtype(place), device=self._device)
            for place, folder in enumerate(self._models)
        ]
        by_number: dict[int, AnswerPair] = {}
        for number in counted(range(half), "comparing answers"):
            written, hidden = (answers[number], answers[number + half]), (states(number), states(number + half))
            for place, each in enumerate(self.batches[number].numbers):
                question = self._questions[each]
                greedy = [of[place] for of in written]
                along = Along([], [])
                if str(each) in hidden[0] and str(each) in hidden[1]:
                    kl, same = divergences_along(
                        ends[0],
                        ends[1],
                        (hidden[0][str(each)], hidden[1][str(each)]),
                        vocabularies=vocabularies,
                        shared=shared,
                    )
                    along = Along(kl.tolist(), same.tolist(), readers[0].split(question, greedy[0]).thought)
                dense, pruned = (reader.read(question, one) for reader, one in zip(readers, greedy, strict=True))
                by_number[each] = AnswerPair(
                    question=question,
                    greedy=(dense, pruned),
                    along=along,
                    first_is_same=readers[0].first(greedy[0]) == readers[1].first(greedy[1]),
                    kept=None if shared is None else len(self._followed(greedy[0])[0]),
                )
        return [by_number[number] for number in range(len(self._questions))]

    def _answerer(self, model: int) -> Answerer:
        if model not in self._opened:
            self._opened.clear()  # the memory is needed for this one
            self._opened[model] = Answerer(
                self._models[model],
                frame=self._frame,
                most=self._most,
                dtype=self._dtype(model),
                device=self._device,
            )
        return self._opened[model]

    def _dtype(self, model: int) -> torch.dtype:
        return measuring_dtype(DTYPES[self._models[model].description.dtype], self._device)

    def _followed(self, dense: Written) -> tuple[list[int], bool]:
        """Return a dense answer in the pruned model's tokens, and whether its end is predicted.

        In another vocabulary it goes up to the first token that is not there, whose place is still predicted.
        """
        if self._shared is None:
            return dense.tokens, dense.ended
        tokens = self._shared.translated(dense.tokens)
        return tokens, dense.ended or len(tokens) < len(dense.tokens)

    @cached_property
    def _tokenizers(self) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
        dense, pruned = self._models
        return dense.tokenizer(), pruned.tokenizer()

    @cached_property
    def _shared(self) -> SharedTokens | None:
        return shared_tokens(*self._tokenizers)
