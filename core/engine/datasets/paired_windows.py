"""Windows of a text in two tokenizations that cover the same spans of the text, so that two models can be compared.

A window begins and ends where both tokenizations have a boundary between tokens. Where they are equal, the windows are
those of `token_windows.evaluation_set`.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.formats import DOCUMENT_END
from core.engine.datasets.token_bytes import TokenBytes
from core.engine.datasets.token_ids import token_ids
from core.engine.datasets.token_windows import EvaluationSet, TextBeginning, begin_token, check_enough
from core.engine.datasets.window_spans import WindowSpans
from secateur_wire.errors import UnusableModel


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
