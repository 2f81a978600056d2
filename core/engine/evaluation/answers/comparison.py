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
from core.engine.datasets.token_bytes import token_ids
from core.engine.evaluation.answers.answerer import Answerer, Written
from core.engine.evaluation.answers.figures import Along, AnswerPair, ReadAnswer
from core.engine.evaluation.answers.questions import EvaluationQuestion
from core.engine.evaluation.answers.thoughts import ThoughtSplit, split_thought, without_marks
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import measuring_dtype
from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import DTYPES

_POSITIONS = 256
"""Most positions whose predictions are in memory at once."""


@dataclass(frozen=True)
class SharedTokens:
    """Ids of the tokens that two vocabularies share: for each of the dense model's its id in the other, in order."""

    dense: tuple[int, ...]
    pruned: tuple[int, ...]

    def translated(self, ids: Sequence[int]) -> list[int]:
        """Return the other vocabulary's ids of an answer, up to its first token that is not shared."""
        by_id = dict(zip(self.dense, self.pruned, strict=True))
        translated: list[int] = []
        for each in ids:
            if each not in by_id:
                break
            translated.append(by_id[each])
        return translated


def shared_tokens(dense: PreTrainedTokenizerBase, pruned: PreTrainedTokenizerBase) -> SharedTokens | None:
    """Return the tokens that both tokenizers have; None where their vocabularies are equal."""
    ids, other = dense.get_vocab(), pruned.get_vocab()
    if ids == other:
        return None
    pairs = sorted((number, other[token]) for token, number in ids.items() if token in other)
    return SharedTokens(tuple(each for each, _ in pairs), tuple(each for _, each in pairs))


@torch.inference_mode()
def divergences_along(
    dense: StreamedModel,
    pruned: StreamedModel,
    states: tuple[Tensor, Tensor],
    *,
    vocabularies: tuple[int, int],
    shared: SharedTokens | None = None,
) -> tuple[Tensor, Tensor]:
    """Return KL(dense‖pruned) in nats, and 1 where both likeliest tokens are equal, at each position [predictions].

    `states` are the last block's outputs of the two models along the same text; of the pruned model there may be fewer,
    and those positions are compared. Only final norm and head of the models are used. `vocabularies` are the numbers of
    tokens with a meaning. Between different vocabularies both distributions are taken over the `shared` tokens, and sum
    to 1 there; a likeliest token that is not shared equals none.
    """
    count = min(each.shape[model.time_dimension] for model, each in zip((dense, pruned), states, strict=True))
    kl, same = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for positions in torch.arange(count).split(_POSITIONS):
        dense_PV = _logits(dense, states[0], positions)[:, : vocabularies[0]]
        pruned_PV = _logits(pruned, states[1], positions)[:, : vocabularies[1]]
        likeliest = dense_PV.argmax(dim=-1)
        if shared is not None:
            ids = torch.tensor(shared.dense, device=dense_PV.device)
            dense_PV, pruned_PV = dense_PV[:, ids], pruned_PV[:, list(shared.pruned)]
            same[positions] = (ids[pruned_PV.argmax(dim=-1)] == likeliest).double().cpu()
        else:
            same[positions] = (pruned_PV.argmax(dim=-1) == likeliest).double().cpu()
        divergence_PV = torch.nn.functional.kl_div(
            pruned_PV.log_softmax(dim=-1), dense_PV.log_softmax(dim=-1), reduction="none", log_target=True
        )
        kl[positions] = divergence_PV.double().sum(dim=-1).cpu()
    return kl, same


def _logits(model: StreamedModel, states: Tensor, positions: Tensor) -> Tensor:
    """Return the logits [positions, V] in float32."""
    part = states.narrow(model.time_dimension, int(positions[0]), len(positions)).to(model.device)
    tokens_1T = torch.zeros(1, len(positions), dtype=torch.long)
    return model.logits(tokens_1T, part, torch.arange(len(positions)))[0].float()


class AnswerReader:
    """Reader of one model's answers. With `counted_in`, tokens are counted in that tokenizer's instead of its own."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, counted_in: PreTrainedTokenizerBase | None = None) -> None:
        self._tokenizer = tokenizer
        self._counted_in = counted_in

    def read(self, question: EvaluationQuestion, written: Written) -> ReadAnswer:
        """Return an answer as it is compared."""
        ids, split = written.tokens, self.split(question, written)
        answer = self._text(ids[split.thought :])
        thought = without_marks(self._text(ids[: split.thought])) if split.has_thought else None
        return ReadAnswer(
            text=answer.strip() if split.has_thought else answer,
            tokens=self._counted(ids[split.thought :]),
            ended=written.ended,
            thought=thought,
            thought_tokens=len(self._counted(ids[: split.thought])),
            thought_ended=split.is_finished,
        )

    def split(self, question: EvaluationQuestion, written: Written) -> ThoughtSplit:
        """Return where the thought of an answer ends, in the model's own tokens."""
        return split_thought(written.tokens, self._with_marks, is_open=question.opens_thought)

    def first(self, written: Written) -> str | None:
        """Return the first token as the vocabulary spells it; None for an answer without one."""
        return self._tokenizer.convert_ids_to_tokens(written.tokens[:1])[0] if written.tokens else None

    def _counted(self, ids: Sequence[int]) -> list[int]:
        if self._counted_in is None:
            return [*ids]
        return token_ids(self._with_marks(ids), self._counted_in)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([*ids], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _with_marks(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([*ids], skip_special_tokens=False, clean_up_tokenization_spaces=False))


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
