"""Documents as windows of tokens: shuffled windows to calibrate and train on, evenly spaced ones to evaluate on.

A text in two tokenizations has windows that cover the same spans, so that two models can be compared. Such a window
begins and ends where both tokenizations have a boundary between tokens; where they are equal, the windows are those of
`evaluation_set`.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.chat.windows import Conversations, pack
from core.engine.datasets.counted_tokens import plain_ids
from core.engine.datasets.formats import DOCUMENT_END
from core.engine.datasets.token_bytes import TokenBytes, token_ids
from core.engine.datasets.window_losses import WindowSpans
from secateur_wire.errors import TooLittleText, UnusableModel
from secateur_wire.reports import LongerWord, TextLength

Documents: TypeAlias = Iterable[str] | Conversations
"""Texts to join and cut anywhere, or conversations, which begin where a window or another one begins."""

# Most characters read per requested token: no more is read, so that a corpus need not be tokenised whole.
_CHARACTERS_PER_TOKEN = 64
_LEAST_CHARACTERS = 4_000_000
_UNKNOWN = -1
"""Bytes of a token for which they are not known."""


class TextBeginning:
    """Documents of a text, up to the characters that are enough for a number of tokens; None: all.

    `end` is the number of characters that were read where the text goes on behind them, else None.
    """

    def __init__(self, documents: Iterable[str], tokens: int | None) -> None:
        self._documents = documents
        self._limit = _enough_characters(tokens)
        self.end: int | None = None

    def __iter__(self) -> Iterator[str]:
        read = 0
        for document in self._documents:
            part = document if self._limit is None else document[: self._limit - read]
            read += len(part)
            goes_on = len(part) < len(document)
            if part or not goes_on:
                yield part
            if goes_on:
                self.end = read
                return


def calibration_windows(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int | None,
    length: int,
    seed: int,
    name: str,
) -> Tensor:
    """Return `samples` windows of `length` tokens in random order from the concatenated documents, [samples, length].

    None takes all windows. No window is used twice. The ids of conversations of which the assistant's words alone count
    say so (`counted_tokens`); otherwise all tokens count. Raises TooLittleText, naming the needed and the available
    amount.
    """
    windows = _cut(documents, tokenizer, None if samples is None else samples * length, length)
    if not (isinstance(documents, Conversations) and documents.counted == "assistant"):
        windows = plain_ids(windows)
    return _drawn(windows, check_enough(len(windows), samples, length, name, "calibration"), seed)


def mixed_windows(parts: Sequence[Tensor], seed: int) -> Tensor:
    """Shuffle windows of several texts, each [samples, length], so that any contiguous part holds some of each text."""
    windows = torch.cat(list(parts))
    return _drawn(windows, len(windows), seed)


def training_windows(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int | None,
    most: int,
    length: int,
    seed: int,
    name: str,
) -> Tensor:
    """Return windows for training, as `calibration_windows` does, but at most `most`; raises TooLittleText.

    The ids of conversations say which tokens count (`counted_tokens`).
    """
    windows = _cut(documents, tokenizer, (samples or most) * length, length)
    return _drawn(windows, min(check_enough(len(windows), samples, length, name, "recovery"), most), seed)


def _drawn(windows: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` windows in random order."""
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return windows[order[:count]].contiguous()


@dataclass(frozen=True)
class EvaluationSet:
    """Windows of a text to evaluate on, [samples, length], all of whose tokens but each first are predicted.

    Of conversations, only those that count are (`counted_tokens`). `text_bytes` is the number of UTF-8 bytes for which
    the predicted tokens stand; None if it is not known exactly. `spans` are the predicted tokens of each window of a
    text that two tokenizers read; None where they are all. `text_end` is the number of characters over which the
    windows are spread where the text is longer, else None.
    """

    windows: Tensor
    text_bytes: int | None
    spans: WindowSpans | None = None
    text_end: int | None = None

    @property
    def predicted(self) -> int:
        """Return the number of predicted tokens."""
        return int((self.windows[:, 1:] >= 0).sum()) if self.spans is None else self.spans.total


def evaluation_set(
    documents: Documents, tokenizer: PreTrainedTokenizerBase, *, samples: int | None, length: int, name: str
) -> EvaluationSet:
    """Return non-overlapping windows of `length` tokens, evenly spaced over the text, and their bytes; None: all.

    Of a long text, only a beginning that is enough for that many windows is read (`TextBeginning`). Raises
    TooLittleText where there are fewer than requested, or none.
    """
    if isinstance(documents, Conversations):
        packed = pack(documents, tokenizer, length=length, most_characters=None, counts_bytes=True)
        chosen = _spread(packed.windows_NT, samples, length, name)
        windows = packed.windows_NT[chosen].contiguous()
        counted = windows[:, 1:] >= 0
        return EvaluationSet(
            windows, None if packed.bytes_NT is None else int(packed.bytes_NT[chosen, 1:][counted].sum())
        )
    counter = TokenBytes(tokenizer)
    tokens, counts = array("i"), array("i")
    text = TextBeginning(documents, None if samples is None else samples * length)
    for document in text:
        ids = token_ids(document + DOCUMENT_END, tokenizer)
        known = counter.count(document + DOCUMENT_END, ids)
        tokens.extend(ids)
        counts.extend([_UNKNOWN] * len(ids) if known is None else known)
    begin = begin_token(tokenizer)
    bodies = _bodies(tokens, length, begin)
    chosen = _spread(bodies, samples, length, name)
    bytes_NT = _bodies(counts, length, begin)[chosen, int(begin is None) :]
    text_bytes = None if (bytes_NT == _UNKNOWN).any() else int(bytes_NT.sum())
    return EvaluationSet(_begun(bodies[chosen], begin), text_bytes, text_end=text.end)


def _spread(windows: Tensor, samples: int | None, length: int, name: str) -> Tensor:
    """Return the numbers of windows that are evenly spaced over all; raises TooLittleText."""
    return torch.tensor(evenly_spaced(len(windows), check_enough(len(windows), samples, length, name, "evaluation")))


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers below `count`, evenly spaced, beginning with 0."""
    number = min(count, most)
    return [each * count // number for each in range(number)]


def evaluation_windows(
    documents: Documents, tokenizer: PreTrainedTokenizerBase, *, samples: int | None, length: int, name: str
) -> Tensor:
    """Return the windows of `evaluation_set` alone, [samples, length]."""
    return evaluation_set(documents, tokenizer, samples=samples, length=length, name=name).windows


def check_enough(windows: int, samples: int | None, length: int, name: str, use: str) -> int:
    """Return the number of windows to use, of those that there are; raises TooLittleText where they are too few."""
    wanted = max(1, windows if samples is None else samples)
    if windows < wanted:
        raise TooLittleText(
            f"{use} needs {wanted} × {length} = {wanted * length} tokens, but {name!r} has {windows} windows "
            f"of {length} ({windows * length} tokens): use fewer or shorter samples, or register more text",
            param=f"{use}.samples",
        )
    return wanted


def starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return True if the tokenizer begins a text with its BOS token; then every window begins with it."""
    return bool(tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])


def count_tokens(document: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of tokens that one document adds to the concatenated stream."""
    return len(token_ids(document + DOCUMENT_END, tokenizer))


def _cut(documents: Documents, tokenizer: PreTrainedTokenizerBase, tokens: int | None, length: int) -> Tensor:
    """Cut documents into windows of `length` tokens, up to a limit of characters for the requested `tokens`."""
    limit = _enough_characters(tokens)
    if isinstance(documents, Conversations):
        return pack(documents, tokenizer, length=length, most_characters=limit).windows_NT
    characters = 0
    ids = array("i")
    for document in documents:
        ids.extend(token_ids(document + DOCUMENT_END, tokenizer))
        characters += len(document)
        if limit is not None and characters >= limit:
            break
    begin = begin_token(tokenizer)
    return _begun(_bodies(ids, length, begin), begin)


def _enough_characters(tokens: int | None) -> int | None:
    return None if tokens is None else max(_LEAST_CHARACTERS, tokens * _CHARACTERS_PER_TOKEN)


def _bodies(values: "array[int]", length: int, begin: int | None) -> Tensor:
    """Return numbers in rows, [windows, body], without a copy; a body is shorter where windows begin with `begin`."""
    body = length - (begin is not None)
    count = len(values) // body if body > 0 else 0
    if not count:
        return torch.empty((0, max(body, 0)), dtype=torch.int32)
    return torch.frombuffer(values, dtype=torch.int32, count=count * body).view(count, body)


def _begun(bodies: Tensor, begin: int | None) -> Tensor:
    """Return windows of token ids, each beginning with `begin` unless it is None."""
    windows = bodies.long()
    return (windows if begin is None else torch.nn.functional.pad(windows, (1, 0), value=begin)).contiguous()


def begin_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token with which every window begins; None if the tokenizer begins a text with none."""
    return tokenizer.bos_token_id if starts_with_bos(tokenizer) else None


@dataclass(frozen=True)
class PairedSet:
    """Windows of one text in the dense model's tokenization and in the new one.

    Each has the numbers of tokens that are predicted in each window. Both predict the same bytes of text.
    `dense_tokens` and `tokens` are the lengths, in both tokenizations, of the text as far as it was read.
    """

    dense: EvaluationSet
    new: EvaluationSet
    dense_tokens: int
    tokens: int


@dataclass(frozen=True)
class _Side:
    """Tokens of a text in one tokenization, and the number of tokens up to the end of each of its parts."""

    ids: "array[int]" = field(default_factory=lambda: array("i"))
    ends: "array[int]" = field(default_factory=lambda: array("q"))

    def start(self, part: int) -> int:
        """Return the number of tokens before a part."""
        return self.ends[part - 1] if part else 0


@dataclass(frozen=True)
class _Parts:
    """Shortest parts of a text that begin and end at a boundary of both tokenizations; `sizes` are their bytes."""

    dense: _Side = field(default_factory=_Side)
    new: _Side = field(default_factory=_Side)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))


def paired_set(
    documents: Iterable[str],
    dense: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    *,
    samples: int | None,
    length: int,
    name: str,
) -> PairedSet:
    """Return windows of at most `length` tokens in both tokenizations, evenly spaced over the text; None: all.

    Of a long text, only a beginning that is enough for that many windows is read. Windows that end before `length`
    tokens are filled up with the token 0 after their end; it is not predicted.

    Raises TooLittleText where there are fewer than requested, or none. Raises UnusableModel where a tokenizer does not
    tell for which text its tokens stand.
    """
    text = TextBeginning(documents, None if samples is None else samples * length)
    parts = _parts(text, dense, new)
    begins = begin_token(dense), begin_token(new)
    room = [length - (begin is not None) for begin in begins]
    windows: list[tuple[int, int]] = []
    start, taken = 0, [0, 0]
    for place, ends in enumerate(zip(parts.dense.ends, parts.new.ends, strict=True)):
        more = [end - side.start(place) for end, side in zip(ends, (parts.dense, parts.new), strict=True)]
        if any(before + added > most for before, added, most in zip(taken, more, room, strict=True)):
            if place > start:
                windows.append((start, place))
            start, taken = place, [0, 0]
        if any(added > most for added, most in zip(more, room, strict=True)):  # a part that fits no window is left out
            start, taken = place + 1, [0, 0]
            continue
        taken = [before + added for before, added in zip(taken, more, strict=True)]
    if max(taken) == max(room):
        windows.append((start, len(parts.sizes)))
    wanted = check_enough(len(windows), samples, length, name, "evaluation")
    chosen = [windows[number * len(windows) // wanted] for number in range(wanted)]
    hidden = 0 if begins[0] is not None and begins[1] is not None else 1  # the first part is context alone
    text_bytes = sum(sum(parts.sizes[first + hidden : end]) for first, end in chosen)
    dense_NT, dense_spans = _side(parts.dense, chosen, begins[0], hidden, length)
    new_NT, new_spans = _side(parts.new, chosen, begins[1], hidden, length)
    counted = [end - first for first, end in dense_spans]
    are_complete = all(span == (1, length) for span in (*dense_spans, *new_spans))
    return PairedSet(
        EvaluationSet(dense_NT, text_bytes, None if are_complete else WindowSpans(dense_spans, counted), text.end),
        EvaluationSet(new_NT, text_bytes, None if are_complete else WindowSpans(new_spans, counted), text.end),
        len(parts.dense.ids),
        len(parts.new.ids),
    )


def _side(
    side: _Side, windows: Sequence[tuple[int, int]], begin: int | None, hidden: int, length: int
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the windows of one tokenization, [windows, length], and the predicted tokens of each.

    The first `hidden` parts of a window are not predicted.
    """
    tokens_NT = torch.zeros((len(windows), length), dtype=torch.long)
    spans: list[tuple[int, int]] = []
    for row, (first, end) in enumerate(windows):
        before = [] if begin is None else [begin]
        start = side.start(first)
        ids = [*before, *side.ids[start : side.start(end)]]
        tokens_NT[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        spans.append((len(before) + side.start(first + hidden) - start, len(ids)))
    return tokens_NT, spans


def _parts(documents: Iterable[str], dense: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> _Parts:
    parts = _Parts()
    counters = TokenBytes(dense), TokenBytes(new)
    for document in documents:
        text = document + DOCUMENT_END
        sides = [
            (ids, _known(counter.ends(text, ids)))
            for tokenizer, counter in zip((dense, new), counters, strict=True)
            for ids in [token_ids(text, tokenizer)]
        ]
        places = sorted(sides[0][1].keys() & sides[1][1].keys())
        parts.sizes.extend(after - before for before, after in pairwise([0, *places]))
        for side, (ids, ends) in zip((parts.dense, parts.new), sides, strict=True):
            before = len(side.ids)
            side.ends.extend(before + ends[place] for place in places)
            side.ids.extend(ids[: ends[places[-1]]] if places else [])
    return parts


def _known(ends: dict[int, int] | None) -> dict[int, int]:
    if ends is None:
        raise UnusableModel(
            "the tokenizer does not tell for which text each token stands, so the model cannot be compared with one "
            "that has another vocabulary",
            param="vocabulary",
        )
    return ends


_SHOWN = 20
_LONGEST = 60
"""Characters of a word that are shown."""


def text_length(documents: Iterable[str], dense: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> TextLength:
    """Return the tokens of a text in both vocabularies, and the words that cost most tokens.

    Words are what spaces separate, each tokenized after a space.
    """
    before = after = 0
    words: Counter[str] = Counter()
    for document in documents:
        before += count_tokens(document, dense)
        after += count_tokens(document, new)
        words.update(document.split())
    named = list(words)
    if before == after or not named:
        return TextLength(dense=before, pruned=after)
    lengths = [_lengths(named, tokenizer) for tokenizer in (dense, new)]
    longer = [
        LongerWord(word=word[:_LONGEST], count=words[word], dense=old, pruned=now)
        for word, old, now in zip(named, *lengths, strict=True)
        if now > old
    ]
    longer.sort(key=lambda each: (-(each.pruned - each.dense) * each.count, each.word))
    return TextLength(dense=before, pruned=after, words=longer[:_SHOWN])


def _lengths(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids = tokenizer([f" {word}" for word in words], add_special_tokens=False, verbose=False)["input_ids"]
    return [len(each) for each in ids]
