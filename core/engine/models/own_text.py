"""Text and conversations that a model writes itself, for calibration without a dataset."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.counting import counting
from core.engine.architectures.description import ModelDescription
from core.engine.datasets.chat.conversations import Frame, LeftOutRows, RenderedRow, to_line
from core.engine.datasets.token_bytes import token_ids
from core.engine.datasets.token_windows import count_tokens, starts_with_bos
from core.engine.models.generation import TokenWriter, TurnEnds, end_tokens, first_token, sequences_that_fit
from secateur_wire.errors import OutOfMemory, UnusableDataset, UnusableModel

_MOST_AT_ONCE: Final = 128
_MOST_TIMES_NEEDED: Final = 8
"""Most sampled tokens per needed token, since a model may end most texts early."""
_QUESTION_SHARE: Final = 4
"""A question that the model asks takes at most this part of a conversation, and an answer gets at least as much."""


@dataclass(frozen=True)
class WrittenText:
    """Texts that are written, and the state from which the rest follows.

    `tokens` is the number of tokens in the texts, `sampled` the number that was drawn for them. `prompts` is the number
    of answered questions. `random_state` is the state of the generator of the random numbers.
    """

    documents: Sequence[str]
    tokens: int
    sampled: int
    prompts: int
    random_state: Tensor


def sequences_at_once(
    description: ModelDescription, length: int, device: torch.device, dtype: torch.dtype | None = None
) -> int:
    """Return the number of sequences of `length` tokens to sample together by a model in `dtype` (None: its own).

    Raises OutOfMemory without room for one.
    """
    try:
        return min(_MOST_AT_ONCE, sequences_that_fit(description, length, device, dtype))
    except OutOfMemory as error:
        raise OutOfMemory(f"'self': {error.message}. Name a dataset instead") from error


class OwnTextWriter(ABC):
    """Writer of texts of at most `length` tokens, batch by batch, at temperature 1."""

    counted: ClassVar[str]
    instead: ClassVar[str]
    """What a user names where the model writes too little."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, length: int, seed: int) -> None:
        self._model, self._tokenizer, self._length = model, tokenizer, length
        self._tokens = TokenWriter(model, len(tokenizer))
        self._generator = torch.Generator().manual_seed(seed)
        self._sampled = self._prompts = 0

    def write(
        self,
        *,
        tokens: int,
        at_once: int,
        before: WrittenText | None = None,
        on_batch: Callable[[WrittenText], None] = lambda text: None,
        on_progress: Callable[[int], None] = lambda tokens: None,
    ) -> Iterator[str]:
        """Yield texts until together they have `tokens` tokens, counted after tokenizing them again.

        At most `at_once` are written in a batch, and each is finished, so that long ones are as frequent as the model
        says. `on_batch` is called after each batch with the text so far, `on_progress` at each step with about the
        tokens so far. Given such a text as `before`, its texts are yielded first, and the rest follows as if never
        interrupted.

        Raises UnusableModel where the model writes too little, NotFiniteWeights where it computes no probabilities.
        """
        texts: list[str] = []
        written = 0
        if before is not None:
            texts, written, self._sampled, self._prompts = (
                [*before.documents],
                before.tokens,
                before.sampled,
                before.prompts,
            )
            self._generator.set_state(before.random_state)
            yield from texts
        with counting(self.counted, tokens) as count:
            while written < tokens:
                if self._sampled > _MOST_TIMES_NEEDED * tokens + at_once * self._length:
                    raise UnusableModel(
                        f"the model writes too little: {written} tokens of {tokens} after sampling {self._sampled}; "
                        f"name {self.instead}",
                        param="model",
                    )
                mean = written / len(texts) if texts else self._length
                wanted = min(at_once, math.ceil((tokens - written) / mean))

                def on_step(step: int, before: int = written, each: float = wanted * mean / self._length) -> None:
                    about = min(before + int(step * each), tokens)
                    count(about)
                    on_progress(about)

                for text, size in self._batch(wanted, len(texts), on_step):
                    texts.append(text)
                    written += size
                    yield text
                on_batch(WrittenText([*texts], written, self._sampled, self._prompts, self._generator.get_state()))

    @abstractmethod
    def _batch(self, count: int, first: int, on_step: Callable[[int], None]) -> Iterator[tuple[str, int]]:
        """Write `count` texts, the first of which has this number; yield those with words, and their tokens."""

    def _drawn(
        self,
        given: Sequence[Sequence[int]],
        most: Sequence[int],
        ends: set[int],
        on_step: Callable[[int], None] = lambda step: None,
    ) -> list[list[int]]:
        written = self._tokens.write(given, most=most, ends=ends, generator=self._generator, on_step=on_step)
        self._sampled += sum(len(ids) + 1 for ids in written)
        return written


class DocumentWriter(OwnTextWriter):
    """Writer of documents.

    The first token is drawn evenly from the full vocabulary, for a wide variety of documents (LLM-QAT, Liu et al. 2023,
    arXiv:2305.17888). The rest is sampled until the end token.
    """

    counted = "the model writes text of its own, tokens"
    instead = "a dataset instead of 'self'"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, length: int, seed: int) -> None:
        super().__init__(model, tokenizer, length=length, seed=seed)
        self._begin = [first_token(model.config, tokenizer)] if starts_with_bos(tokenizer) else []
        self._first_tokens = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
        self._ends = end_tokens(model.config, tokenizer)

    def _batch(self, count: int, first: int, on_step: Callable[[int], None]) -> Iterator[tuple[str, int]]:
        chosen = torch.randint(len(self._first_tokens), (count,), generator=self._generator)
        begun = [self._first_tokens[place] for place in chosen.tolist()]
        rest = self._drawn([[*self._begin, token] for token in begun], [self._length - 1] * count, self._ends, on_step)
        for token, ids in zip(begun, rest, strict=True):
            document = str(self._tokenizer.decode([token, *ids], skip_special_tokens=True))
            if document.strip():
                yield document, count_tokens(document, self._tokenizer)


class ConversationWriter(OwnTextWriter):
    """Writer of conversations in the model's chat template, as lines (`rendered.to_line`).

    Without `questions`, which are rendered up to the words that ask for an answer, the model asks its own: a chat model
    that is given only what precedes a user's turn writes such a turn (Magpie, Xu et al. 2024, arXiv:2406.08464).
    Questions of more than half of `length` are left out and counted in `left_out`. The template itself does not run
    here: its words around a question and an answer are given. Raises UnusableDataset where no question is left.
    """

    counted = "the model writes conversations of its own, tokens"
    instead = "a dataset with answers instead"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        frame: Frame,
        *,
        length: int,
        seed: int,
        questions: Sequence[RenderedRow] | None = None,
    ) -> None:
        super().__init__(model, tokenizer, length=length, seed=seed)
        self._frame = frame
        self.left_out = LeftOutRows()
        self._turns = TurnEnds(model.config, tokenizer, frame)
        self._opening = token_ids(frame.opening, tokenizer)
        self._questions = None if questions is None else self._short(questions, seed)
        if questions is None and len(self._opening) > length // 2:
            raise UnusableModel(
                f"the chat template writes {len(self._opening)} tokens before a question, which leaves too little room "
                f"in {length} for the question and its answer: use longer sequences",
                param="model",
            )

    def _batch(self, count: int, first: int, on_step: Callable[[int], None]) -> Iterator[tuple[str, int]]:
        questions = self._own_questions(count) if self._questions is None else self._taken(self._questions, count)
        self._prompts += count
        given = [token_ids(question, self._tokenizer) for question in questions]
        rooms = [self._length - len(ids) for ids in given]
        answers = self._drawn(given, rooms, self._turns.tokens, on_step) if given else []
        for question, ids, room in zip(questions, answers, rooms, strict=True):
            text, answer = self._turns.text(ids), self._turns.turn(ids, self._frame.closing)
            if not answer.strip():
                continue
            is_finished = len(ids) < room or answer != text
            text = question + answer + (self._frame.closing if is_finished else "")
            first += 1
            line = to_line(first, text, [(len(question), len(text.rstrip()))])
            yield line, min(len(token_ids(text, self._tokenizer)), self._length)

    def _short(self, questions: Sequence[RenderedRow], seed: int) -> list[str]:
        """Return the questions that leave room for an answer, in random order."""
        most = self._length // 2
        short: list[str] = []
        for row in questions:
            if len(token_ids(row.text, self._tokenizer)) > most:
                self.left_out.add(f"a question of more than {most} tokens", row.line)
            else:
                short.append(row.text)
        if not short:
            raise UnusableDataset(
                f"every question has more than {most} tokens, which leaves too little room in {self._length} for an "
                "answer: use longer sequences"
            )
        order = torch.randperm(len(short), generator=torch.Generator().manual_seed(seed)).tolist()
        return [short[place] for place in order]

    def _taken(self, questions: Sequence[str], count: int) -> list[str]:
        """Return the next questions; after the last follows the first again."""
        return [questions[number % len(questions)] for number in range(self._prompts, self._prompts + count)]

    def _own_questions(self, count: int) -> list[str]:
        """Have the model ask questions; return each that leaves room for an answer, as rendered."""
        most = max(1, self._length // _QUESTION_SHARE)
        turns = self._drawn([self._opening] * count, [most] * count, self._turns.tokens)
        frame = self._frame
        texts = [self._turns.turn(ids, frame.between).strip() for ids in turns]
        questions = [frame.opening + text + frame.between for text in texts if text]
        longest = self._length - self._length // _QUESTION_SHARE
        return [each for each in questions if len(token_ids(each, self._tokenizer)) <= longest]
