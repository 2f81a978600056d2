"""Conversations that a model writes in its own chat template: its answers, and on request its questions too.

A chat model that is given only what precedes a user's turn writes such a turn (Magpie, Xu et al. 2024,
arXiv:2406.08464). Questions and answers are sampled at temperature 1. The template itself does not run here: its words
around a question and an answer are given.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.counting import counting
from core.engine.datasets.chat.conversations import LeftOutRows
from core.engine.datasets.chat.rendered import Frame, RenderedRow, to_line
from core.engine.datasets.token_ids import token_ids
from core.engine.models.continuous_batch import ContinuousBatch, begins_at_any_step, sample_continuations
from core.engine.models.self_text import MOST_TIMES_NEEDED, WrittenText
from core.engine.models.turn_ends import TurnEnds
from secateur_wire.errors import UnusableDataset, UnusableModel

_QUESTION_SHARE: Final = 4
"""A question that the model asks takes at most this part of a conversation, and an answer gets at least as much."""


class ConversationWriter:
    """Writer of conversations of at most `length` tokens with one model.

    Without `questions`, which are rendered up to the words that ask for an answer, the model asks its own. Those of
    more than half of `length` are left out and counted in `left_out`. Raises UnusableDataset where none is left.
    """

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
        self._tokenizer, self._frame = tokenizer, frame
        self._batch = ContinuousBatch(model, replaces=begins_at_any_step(model))
        self._generator = torch.Generator().manual_seed(seed)
        self._length, self._seed = length, seed
        self.left_out = LeftOutRows()
        self._turns = TurnEnds(model.config, tokenizer, frame)
        self._opening = token_ids(frame.opening, tokenizer)
        self._questions = None if questions is None else self._short(questions)
        if questions is None and len(self._opening) > length // 2:
            raise UnusableModel(
                f"the chat template writes {len(self._opening)} tokens before a question, which leaves too little room "
                f"in {length} for the question and its answer: use longer sequences",
                param="model",
            )

    def write(
        self,
        *,
        tokens: int,
        at_once: int,
        before: WrittenText | None = None,
        on_batch: Callable[[WrittenText], None] = lambda text: None,
        on_progress: Callable[[int], None] = lambda tokens: None,
    ) -> Iterator[str]:
        """Yield conversations as lines (`rendered.to_line`) until together they have `tokens` tokens.

        `at_once` are written in a batch. `before`, `on_batch` and `on_progress` are those of `generate_documents`, with
        lines as documents.

        Raises UnusableModel where the model writes too little, NotFiniteWeights where it computes no probabilities.
        """
        lines: list[str] = []
        written = sampled = prompts = 0
        if before is not None:
            self._generator.set_state(before.random_state)
            lines, written, sampled, prompts = [*before.documents], before.tokens, before.sampled, before.prompts
            yield from lines
        with counting("the model writes conversations of its own, tokens", tokens) as count:
            while written < tokens:
                if sampled > MOST_TIMES_NEEDED * tokens + at_once * self._length:
                    raise UnusableModel(
                        f"the model writes too little in conversations: {written} tokens of {tokens} after sampling "
                        f"{sampled}; name a dataset with answers instead",
                        param="model",
                    )
                wanted = min(at_once, max(1, math.ceil((tokens - written) / (self._length / 2))))
                given, drawn = (
                    self._own_questions(wanted) if self._questions is None else (self._taken(prompts, wanted), 0)
                )
                prompts += wanted
                for question, (answer, size, is_finished) in zip(given, self._answers(given), strict=True):
                    sampled += size
                    if not answer.strip():
                        continue
                    text = question + answer + (self._frame.closing if is_finished else "")
                    lines.append(to_line(len(lines) + 1, text, [(len(question), len(text.rstrip()))]))
                    written += min(len(token_ids(text, self._tokenizer)), self._length)
                    yield lines[-1]
                sampled += drawn
                count(min(written, tokens))
                on_progress(min(written, tokens))
                on_batch(WrittenText([*lines], written, sampled, 0, [], self._generator.get_state(), prompts))

    def _short(self, questions: Sequence[RenderedRow]) -> list[str]:
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
        order = torch.randperm(len(short), generator=torch.Generator().manual_seed(self._seed)).tolist()
        return [short[place] for place in order]

    def _taken(self, first: int, count: int) -> list[str]:
        """Return questions from the number `first` on; after the last follows the first again."""
        assert self._questions is not None
        return [self._questions[number % len(self._questions)] for number in range(first, first + count)]

    def _own_questions(self, count: int) -> tuple[list[str], int]:
        """Have the model ask questions; return each as rendered, and the number of sampled tokens."""
        most = max(1, self._length // _QUESTION_SHARE)
        turns = self._sampled([self._opening] * count, [most] * count)
        frame = self._frame
        texts = [self._turns.turn(ids, frame.between).strip() for ids in turns]
        questions = [frame.opening + text + frame.between for text in texts if text]
        most = self._length - self._length // _QUESTION_SHARE
        fitting = [each for each in questions if len(token_ids(each, self._tokenizer)) <= most]
        return fitting, sum(len(ids) + 1 for ids in turns)

    def _answers(self, questions: Sequence[str]) -> list[tuple[str, int, bool]]:
        """Return the answer to each question, its tokens with the end token, and True if it came to its end."""
        if not questions:
            return []
        given = [token_ids(question, self._tokenizer) for question in questions]
        most = [self._length - len(ids) for ids in given]
        answers = []
        for ids, room in zip(self._sampled(given, most), most, strict=True):
            text, cut = self._turns.text(ids), self._turns.turn(ids, self._frame.closing)
            answers.append((cut, len(ids) + 1, len(ids) < room or cut != text))
        return answers

    def _sampled(self, given: Sequence[Sequence[int]], most: Sequence[int]) -> list[list[int]]:
        return sample_continuations(
            self._batch,
            given,
            most=most,
            ends=self._turns.tokens,
            vocabulary=len(self._tokenizer),
            generator=self._generator,
        )
