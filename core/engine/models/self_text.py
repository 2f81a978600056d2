"""Text sampled from the model itself, for calibration without a dataset."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.counting import counting
from core.engine.architectures.description import ModelDescription
from core.engine.datasets.token_windows import count_tokens, starts_with_bos
from core.engine.models.continuous_batch import ContinuousBatch, begins_at_any_step
from core.engine.models.generation import end_tokens, first_token, sequences_that_fit
from core.engine.models.sampling import draw_tokens
from secateur_wire.errors import OutOfMemory, UnusableModel

_MOST_AT_ONCE = 128
MOST_TIMES_NEEDED = 8
"""Most sampled tokens per needed token, since a model may end most texts early."""


@dataclass(frozen=True)
class WrittenText:
    """Finished documents, the token ids of unfinished ones, and the state from which the rest follows.

    `tokens` is the number of tokens in the documents, `sampled` the number that was drawn for them; the model ended
    `ended` documents itself. `random_state` is the state of the generator of the random numbers. In conversations
    `prompts` is the number of answered questions, and no document is unfinished.
    """

    documents: Sequence[str]
    tokens: int
    sampled: int
    ended: int
    begun: Sequence[Sequence[int]]
    random_state: Tensor
    prompts: int = 0


def sequences_at_once(
    description: ModelDescription, length: int, device: torch.device, dtype: torch.dtype | None = None
) -> int:
    """Return the number of sequences of `length` tokens to sample together by a model in `dtype` (None: its own).

    A row of the cache has room for two sequences, since one may begin where another ends. Raises OutOfMemory without
    room for one row.
    """
    try:
        return min(_MOST_AT_ONCE, sequences_that_fit(description, 2 * length, device, dtype))
    except OutOfMemory as error:
        raise OutOfMemory(f"'self': {error.message}. Name a dataset instead") from error


def generate_documents(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: int,
    length: int,
    seed: int,
    at_once: int,
    before: WrittenText | None = None,
    on_batch: Callable[[WrittenText], None] = lambda text: None,
    on_progress: Callable[[int], None] = lambda tokens: None,
) -> Iterator[str]:
    """Yield documents of up to `length` tokens that the model generates.

    The first token is drawn from the full vocabulary, for a wide variety of documents (LLM-QAT, Liu et al. 2023,
    arXiv:2305.17888). The rest is sampled at temperature 1 until the end token. Up to `at_once` documents are generated
    in a batch with a key-value cache. One that ends makes room for the next, until together they have `tokens` tokens,
    counted after tokenizing the texts again. Every document that is begun is finished, so that long ones are as
    frequent as the model says.

    After at most `length` steps a new batch is formed of the documents that are begun. `on_batch` is called after each
    batch with the text so far, and `on_progress` with the tokens so far after each step. Given such a text as `before`,
    its documents are yielded first, and the rest follows as if never interrupted.

    Raises UnusableModel where the model generates too little, NotFiniteWeights where it computes no probabilities.
    """
    writer = _Writer(model, tokenizer, needed=tokens, length=length, seed=seed, at_once=at_once)
    if before is not None:
        writer.resume(before)
        yield from before.documents
    with counting("the model writes text of its own, tokens", tokens) as count:
        while not writer.is_done:
            finished = len(writer.documents)
            for about in writer.write_batch():
                count(about)
                on_progress(about)
            yield from writer.documents[finished:]
            on_batch(writer.text())


@dataclass
class _Row:
    """Row of a batch: token ids of an unfinished document. The model has read the first `read` of them."""

    ids: list[int]
    read: int = 0
    is_over: bool = False


class _Writer:
    """Finished documents, and the rows of unfinished ones."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        needed: int,
        length: int,
        seed: int,
        at_once: int,
    ) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._tokenizer = tokenizer
        self._needed, self._length, self._at_once = needed, length, at_once
        self._begin = [first_token(model.config, tokenizer)] if starts_with_bos(tokenizer) else []
        self._first_tokens = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
        self._ends = end_tokens(model.config, tokenizer)
        self._replaces = begins_at_any_step(model)
        self._batch = ContinuousBatch(model, replaces=self._replaces)
        self._rows: list[_Row] = []
        self._tokens = self._sampled = self._ended = 0
        self.documents: list[str] = []

    def resume(self, text: WrittenText) -> None:
        """Continue from a text instead of from nothing."""
        self.documents, self._tokens, self._sampled = [*text.documents], text.tokens, text.sampled
        self._generator.set_state(text.random_state)
        self._ended, self._rows = text.ended, [_Row([*ids]) for ids in text.begun]

    def text(self) -> WrittenText:
        """Return the text so far, between two batches."""
        begun = [[*row.ids] for row in self._rows]
        random_state = self._generator.get_state()
        return WrittenText([*self.documents], self._tokens, self._sampled, self._ended, begun, random_state)

    @property
    def is_done(self) -> bool:
        return not self._rows and self._tokens >= self._needed

    def write_batch(self) -> Iterator[int]:
        """Form a batch of the documents that are begun and of new ones, and write on; yield the tokens so far.

        It ends after `length` steps, when no document is begun, or when it could have twice as many rows.
        """
        self._rows += [self._new_row() for _ in range(min(self._at_once - len(self._rows), self._wanted()))]
        logits_BV = self._batch.begin([row.ids for row in self._rows])
        for row in self._rows:
            row.read = len(row.ids)
        about = 0
        for step in range(1, self._length + 1):
            self._draw(logits_BV)
            about = max(about, min(self._tokens + sum(map(self._drawn, self._live)), self._needed))
            yield about
            self._fill_rows()
            if not self._rows or step == self._length or self._could_double():
                break
            logits_BV = self._read()
        self._rows = self._live

    @property
    def _live(self) -> list[_Row]:
        return [row for row in self._rows if not row.is_over]

    def _draw(self, logits_BV: Tensor) -> None:
        """Draw the next token of each row that has read all its own, and finish the documents that are over."""
        drawing = [place for place, row in enumerate(self._rows) if not row.is_over and row.read == len(row.ids)]
        logits_BV = logits_BV[:, : len(self._tokenizer)]
        if len(drawing) < len(self._rows):
            logits_BV = logits_BV[torch.tensor(drawing, device=logits_BV.device)]
        drawn = draw_tokens(
            logits_BV, torch.rand(len(drawing), generator=self._generator, dtype=torch.float64)
        ).tolist()
        for place, token in zip(drawing, drawn, strict=True):
            row = self._rows[place]
            if token in self._ends:
                self._ended += 1
            else:
                row.ids.append(token)
            if token in self._ends or self._drawn(row) + 1 == self._length:
                self._finish(row)

    def _finish(self, row: _Row) -> None:
        row.is_over = True
        self._sampled += self._drawn(row) + 1
        document = str(self._tokenizer.decode(row.ids[len(self._begin) :], skip_special_tokens=True))
        if self._drawn(row) and document.strip():
            self._tokens += count_tokens(document, self._tokenizer)
            self.documents.append(document)

    def _fill_rows(self) -> None:
        """Replace finished documents by new ones; drop the rows without a document when they are half of all rows."""
        if self._replaces:
            wanted = self._wanted()
            over = [place for place, row in enumerate(self._rows) if row.is_over]
            for place in over[: max(wanted, 0)]:
                self._rows[place] = self._new_row()
        live = [place for place, row in enumerate(self._rows) if not row.is_over]
        if 2 * len(live) <= len(self._rows):
            if live:
                self._batch.keep(live)
            self._rows = [self._rows[place] for place in live]

    def _read(self) -> Tensor:
        """Read the next token of each row; return the logits [rows, vocabulary]."""
        fed = [0 if row.is_over else row.ids[row.read] for row in self._rows]
        new = [place for place, row in enumerate(self._rows) if row.read == 0]
        for row in self._rows:
            row.read += 1
        return self._batch.read(fed, new)

    def _new_row(self) -> _Row:
        if self._sampled > MOST_TIMES_NEEDED * self._needed + self._at_once * self._length:
            raise UnusableModel(
                f"the model writes too little text to calibrate on: {self._tokens} tokens of {self._needed} after "
                f"sampling {self._sampled}; name a dataset instead of 'self'",
                param="model",
            )
        first = self._first_tokens[int(torch.randint(len(self._first_tokens), (1,), generator=self._generator))]
        return _Row([*self._begin, first])

    def _could_double(self) -> bool:
        """Return True if enough documents are still wanted for a new batch of twice the rows."""
        rows = min(self._at_once, len(self._live) + self._wanted())
        return self._replaces and rows >= 2 * len(self._rows)

    def _wanted(self) -> int:
        """Return the number of documents to begin, by the length that is expected of them and of those begun.

        Every token ends a document with the same probability, estimated from all tokens so far and the documents that
        the model ended. With none, documents are expected to have `length` tokens.
        """
        live = self._live
        sampled = self._sampled + sum(self._drawn(row) + 1 for row in live)
        mean = (self._length + sampled) / self._ended if self._ended else math.inf

        def rest(drawn: int) -> float:
            """Return the expected number of tokens after the first `drawn`."""
            most = self._length - drawn
            return most if math.isinf(mean) else -mean * math.expm1(-most / mean)

        missing = self._needed - self._tokens - sum(self._drawn(row) + rest(self._drawn(row)) for row in live)
        return max(0, math.ceil(missing / rest(0)))

    def _drawn(self, row: _Row) -> int:
        """Return the number of tokens drawn from the model's distribution."""
        return len(row.ids) - len(self._begin) - 1
