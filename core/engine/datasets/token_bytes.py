"""Token ids of a text, by a model's tokenizer, and the UTF-8 bytes of the text for which they stand."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from core.panics import is_panic
from secateur_wire.errors import UnusableModel


def token_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a text; raises UnusableModel where the tokenizer fails.

    The library's regular expressions backtrack up to a limit; beyond it the library panics, which is not an Exception.
    """
    return encoded(text, tokenizer)[0]


def encoded(text: str, tokenizer: PreTrainedTokenizerBase, *, with_starts: bool = False) -> tuple[list[int], list[int]]:
    """Return the tokens of a text and, with `with_starts`, the place of each in the text; raises UnusableModel."""
    if with_starts and not tokenizer.is_fast:
        raise UnusableModel(
            "the model's tokenizer does not tell for which text a token stands, so that the assistant's tokens are not "
            "known: count all tokens",
            param="model",
        )
    try:
        encoding = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=with_starts)
    except BaseException as error:
        if not is_panic(error):
            raise
        raise UnusableModel(
            f"the model's tokenizer fails on a text of {len(text)} characters: {str(error)[:200]}", param="model"
        ) from error
    return encoding["input_ids"], [start for start, _ in encoding["offset_mapping"]] if with_starts else []


_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
"""Token of a single byte in a vocabulary with byte fallback."""
_WORD_START: Final = "\u2581"
"""Character that stands for a space in the tokens of SentencePiece."""


class TokenBytes:
    """Counter of the bytes of tokens: by what they spell, or by their places in the text.

    Byte-level tokens, and those of SentencePiece with their byte tokens, spell a text byte by byte. They are used where
    they spell exactly the given text, but for a space that the tokenizer may put before it. Otherwise a fast
    tokenizer's places are used: a token stands for everything from the end of the token before it to its own end, and a
    character that several tokens share counts with the first. Special tokens stand for no bytes, but the unknown token
    stands for the text that it replaces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {number: content.encode() for content, number in tokenizer.get_added_vocab().items()}
        replaces_text = {tokenizer.unk_token_id} - {tokenizer.bos_token_id, tokenizer.eos_token_id}
        self._special = {*tokenizer.all_special_ids} - replaces_text

    def count(self, text: str, ids: Sequence[int]) -> list[int] | None:
        """Return the bytes of each token of a text, which add up to the text; None where they are not known."""
        counts = self._spelled(text.encode(), ids)
        if counts is None:
            counts = self._placed(text)
        if counts is None or len(counts) != len(ids):
            return None
        return [0 if number in self._special else count for number, count in zip(ids, counts, strict=True)]

    def ends(self, text: str, ids: Sequence[int]) -> dict[int, int] | None:
        """Return the number of tokens up to each place in bytes at which one ends; None where it is not known."""
        counts = self.count(text, ids)
        if counts is None:
            return None
        ends: dict[int, int] = {}
        place = 0
        for number, count in enumerate(counts, 1):
            place += count
            ends[place] = number
        return ends

    def _spelled(self, text: bytes, ids: Sequence[int]) -> list[int] | None:
        distinct = list({*ids})
        tokens = dict(zip(distinct, self._tokenizer.convert_ids_to_tokens(distinct), strict=True))
        for spell in _SPELLINGS:
            pieces = {number: self._added.get(number) or spell(token) for number, token in tokens.items()}
            spelled = b"".join([pieces[number] or b"" for number in ids])
            put_before = len(spelled) - len(text)
            if spelled[put_before:] == text and spelled[:put_before] in (b"", b" ") and ids:
                counts = [len(pieces[number] or b"") for number in ids]
                counts[0] -= put_before
                return counts
        return None

    def _placed(self, text: str) -> list[int] | None:
        if not self._tokenizer.is_fast:
            return None
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        counts: list[int] = []
        reached = 0
        for _, end in encoded["offset_mapping"]:
            counts.append(len(text[reached:end].encode()))
            reached = max(reached, end)
        if counts:
            counts[-1] += len(text[reached:].encode())
        return counts


_BYTES: Final = {character: byte for byte, character in bytes_to_unicode().items()}
"""Bytes by the characters that stand for them in byte-level vocabularies."""


def _spell_byte_level(token: str) -> bytes | None:
    """Return the bytes of a byte-level token; None for another kind of token."""
    return bytes(_BYTES[each] for each in token) if _BYTES.keys() >= {*token} else None


def _spell_sentencepiece(token: str) -> bytes:
    """Return the bytes of a token of SentencePiece."""
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace(_WORD_START, " ").encode()


_SPELLINGS: Final[tuple[Callable[[str], bytes | None], ...]] = (_spell_byte_level, _spell_sentencepiece)
