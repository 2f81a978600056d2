"""Rendered conversations as windows of tokens.

A window begins with a conversation and holds as many whole ones as fit. The beginning of the next one fills the rest,
and is not counted there: that conversation begins the next window. So every conversation counts once, with everything
said before in it, and no window has padding. The last window is filled with the first conversations again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.chat.conversations import RenderedRow
from core.engine.datasets.counted_tokens import with_counted
from core.engine.datasets.token_bytes import TokenBytes, encoded
from secateur_wire.errors import TooLittleText, UnusableDataset

Counted = Literal["all", "assistant"]


@dataclass
class Conversations:
    """Rendered conversations of the set `name`, and which of their tokens count.

    `unmarked` is the reason why the assistant's words are not known in some of them. `param` is the field that chose
    what counts. `notes` say what was left out, once the windows are cut.
    """

    name: str
    rows: Iterable[RenderedRow]
    counted: Counted = "all"
    unmarked: str | None = None
    param: str = "evaluation.counted_tokens"
    notes: list[str] = field(default_factory=list)


class _Piece(NamedTuple):
    """Tokens of a conversation, whether each counts, and the bytes for which each stands (None: not known)."""

    ids_T: Tensor
    counted_T: Tensor
    bytes_T: Tensor | None


@dataclass(frozen=True)
class PackedWindows:
    """Windows of conversations [windows, length], whose ids say which tokens count.

    `bytes_NT` are the UTF-8 bytes for which each token stands; None where they were not asked for, or are not known.
    """

    windows_NT: Tensor
    bytes_NT: Tensor | None


def pack(
    conversations: Conversations,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    most_characters: int | None,
    counts_bytes: bool = False,
) -> PackedWindows:
    """Cut conversations into windows of `length` tokens, in their order, up to a number of characters (None: all).

    Of a conversation that is longer than a window only its beginning is used; one whose assistant speaks only after
    that, or not at all, is left out where only the assistant's tokens count. Both are noted. Raises UnusableDataset
    where the assistant's words are not known, TooLittleText where nothing is left.
    """
    pieces = list(_pieces(conversations, tokenizer, length, most_characters, counts_bytes))
    if not pieces:
        raise TooLittleText(
            f"{conversations.name!r} has no conversation with tokens that count: {' '.join(conversations.notes)}",
            param=conversations.param,
        )
    rows = [_joined(row, length) for row in _rows(pieces, length)]
    ids_NT, counted_NT = torch.stack([row.ids_T for row in rows]), torch.stack([row.counted_T for row in rows])
    known = [row.bytes_T for row in rows if row.bytes_T is not None]
    return PackedWindows(
        with_counted(ids_NT, counted_NT), torch.stack(known) if counts_bytes and len(known) == len(rows) else None
    )


def _pieces(
    conversations: Conversations,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    most_characters: int | None,
    counts_bytes: bool,
) -> Iterator[_Piece]:
    counter = TokenBytes(tokenizer) if counts_bytes else None
    is_of_assistant = conversations.counted == "assistant"
    cut: list[int] = []
    unheard: list[int] = []
    characters = 0
    for row in conversations.rows:
        ids, starts = encoded(row.text, tokenizer, with_starts=is_of_assistant)
        if is_of_assistant:
            counted_T = torch.tensor(_are_in(_spans(row, conversations), starts))
        else:
            counted_T = torch.ones(len(ids), dtype=torch.bool)
        numbers = None if counter is None else counter.count(row.text, ids)
        piece = _Piece(
            torch.tensor(ids, dtype=torch.long)[:length],
            counted_T[:length],
            None if numbers is None else torch.tensor(numbers, dtype=torch.long)[:length],
        )
        if not piece.counted_T[1:].any():  # nothing predicts the first token of a window
            unheard.append(row.line)
            continue
        if len(ids) > length:
            cut.append(row.line)
        yield piece
        characters += len(row.text)
        if most_characters is not None and characters >= most_characters:
            break
    if cut:
        conversations.notes.append(
            f"{conversations.name}: {_number(cut)} longer than {length} tokens, so that only the beginning was used."
        )
    if unheard:
        conversations.notes.append(
            f"{conversations.name}: {_number(unheard)} left out, because the assistant says nothing in the first "
            f"{length} tokens."
            if is_of_assistant
            else f"{conversations.name}: {_number(unheard)} left out, because a single token predicts nothing."
        )


def _number(lines: list[int]) -> str:
    """Return "3 conversations (the first on line 7) were"."""
    one = len(lines) == 1
    return f"{len(lines)} conversation{'' if one else 's'} (the first on line {lines[0]}) {'was' if one else 'were'}"


def _spans(row: RenderedRow, conversations: Conversations) -> list[tuple[int, int]]:
    if row.spans is None:
        raise UnusableDataset(
            f"{conversations.param}: the assistant's words are not known in {conversations.unmarked or row.line}: "
            "count all tokens, or use conversations of one question and its answer",
            param=conversations.param,
        )
    return row.spans


def _are_in(spans: list[tuple[int, int]], starts: list[int]) -> list[bool]:
    """Return for each place, in ascending order, whether it is in one of the spans, which ascend too."""
    inside: list[bool] = []
    number = 0
    for start in starts:
        while number < len(spans) and spans[number][1] <= start:
            number += 1
        inside.append(number < len(spans) and spans[number][0] <= start)
    return inside


def _rows(pieces: list[_Piece], length: int) -> Iterator[list[_Piece]]:
    """Yield the conversations of each window; the last may reach beyond it and is not counted there."""
    row: list[_Piece] = []
    room = length
    for piece in pieces:
        if len(piece.ids_T) > room:
            yield [*row, _uncounted(piece)]
            row, room = [], length
        row.append(piece)
        room -= len(piece.ids_T)
        if not room:
            yield row
            row, room = [], length
    if row:
        for piece in cycle(pieces):
            row.append(_uncounted(piece))
            room -= len(piece.ids_T)
            if room <= 0:
                break
        yield row


def _uncounted(piece: _Piece) -> _Piece:
    return piece._replace(counted_T=torch.zeros_like(piece.counted_T))


def _joined(row: list[_Piece], length: int) -> _Piece:
    known = [piece.bytes_T for piece in row if piece.bytes_T is not None]
    return _Piece(
        torch.cat([piece.ids_T for piece in row])[:length],
        torch.cat([piece.counted_T for piece in row])[:length],
        torch.cat(known)[:length] if len(known) == len(row) else None,
    )
