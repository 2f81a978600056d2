"""Windows of a text in two tokenizations that cover the same spans of the text, so that two models can be compared.

A window begins and ends where both tokenizations have a boundary between tokens. Where they are equal, the windows are
those of `token_windows.evaluation_set`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.formats import DOCUMENT_END
from core.engine.datasets.token_bytes import TokenBytes
from core.engine.datasets.token_ids import token_ids
from core.engine.datasets.token_windows import EvaluationSet, begin_token, check_enough, reading_limit, up_to
from core.engine.datasets.window_spans import WindowSpans
from secateur_wire.errors import UnusableModel


@dataclass(frozen=True)
class PairedSet:
    """Windows of one text in the dense model's tokenization and in the new one.

    Each has the numbers of tokens that are predicted in each window. Both predict the same bytes of text.
    `dense_tokens` and `tokens` are the lengths in both tokenizations of all that was read.
    """

    dense: EvaluationSet
    new: EvaluationSet
    dense_tokens: int
    tokens: int


@dataclass(frozen=True)
class _Segments:
    """Shortest parts of a text that begin and end at a boundary of both tokenizations.

    `dense` and `new` have the tokens of each part, `sizes` its bytes.
    """

    dense: list[list[int]]
    new: list[list[int]]
    sizes: list[int]


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

    Of a long text only the beginning is read, as `evaluation_set` reads it. Windows that end before `length` tokens are
    filled up with the token 0 after their end; it is not predicted.

    Raises TooLittleText where there are fewer than requested, or none. Raises UnusableModel where a tokenizer does not
    tell for which text its tokens stand.
    """
    limit = reading_limit(None if samples is None else samples * length)
    parts = _segments(up_to(limit, documents), dense, new)
    begins = begin_token(dense), begin_token(new)
    room = [length - (begin is not None) for begin in begins]
    windows: list[tuple[int, int]] = []
    start, taken = 0, [0, 0]
    for place, tokens in enumerate(zip(parts.dense, parts.new, strict=True)):
        more = [len(each) for each in tokens]
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
        EvaluationSet(dense_NT, text_bytes, None if are_complete else WindowSpans(dense_spans, counted)),
        EvaluationSet(new_NT, text_bytes, None if are_complete else WindowSpans(new_spans, counted)),
        sum(map(len, parts.dense)),
        sum(map(len, parts.new)),
    )


def _side(
    parts: Sequence[Sequence[int]], windows: Sequence[tuple[int, int]], begin: int | None, hidden: int, length: int
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the windows of one tokenization, [windows, length], and the predicted tokens of each.

    The first `hidden` parts of a window are not predicted.
    """
    tokens_NT = torch.zeros((len(windows), length), dtype=torch.long)
    spans: list[tuple[int, int]] = []
    for row, (first, end) in enumerate(windows):
        before = [] if begin is None else [begin]
        ids = [*before, *(each for part in parts[first:end] for each in part)]
        tokens_NT[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        spans.append((len(before) + sum(map(len, parts[first : first + hidden])), len(ids)))
    return tokens_NT, spans


def _segments(documents: Iterable[str], dense: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> _Segments:
    parts = _Segments([], [], [])
    counters = TokenBytes(dense), TokenBytes(new)
    for document in documents:
        text = document + DOCUMENT_END
        sides = [
            (ids, _known(counter.ends(text, ids)))
            for tokenizer, counter in zip((dense, new), counters, strict=True)
            for ids in [token_ids(text, tokenizer)]
        ]
        (dense_ids, dense_ends), (new_ids, new_ends) = sides
        before = (0, 0, 0)
        for place in sorted(dense_ends.keys() & new_ends.keys()):
            after = place, dense_ends[place], new_ends[place]
            parts.sizes.append(place - before[0])
            parts.dense.append(dense_ids[before[1] : after[1]])
            parts.new.append(new_ids[before[2] : after[2]])
            before = after
    return parts


def _known(ends: dict[int, int] | None) -> dict[int, int]:
    if ends is None:
        raise UnusableModel(
            "the tokenizer does not tell for which text each token stands, so the model cannot be compared with one "
            "that has another vocabulary",
            param="vocabulary",
        )
    return ends
