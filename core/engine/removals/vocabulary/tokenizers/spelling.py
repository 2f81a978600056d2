"""Spellings of tokens: which bytes of a text a token of a vocabulary stands for."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

Spelling = Callable[[str], bytes]

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_START: Final = "\u2581"
"""Character that stands for a space in the tokens of SentencePiece."""


def byte_characters() -> dict[str, int]:
    """Return the bytes by the characters that stand for them in byte-level vocabularies, as GPT-2 has them.

    Printable characters of Latin-1 stand for themselves, all other bytes in order for the characters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_CHARACTERS: Final = byte_characters()


def byte_token(byte: int) -> str:
    """Return the token of a single byte in a vocabulary with byte fallback."""
    return f"<0x{byte:02X}>"


def _byte_level(token: str) -> bytes:
    """Return the bytes of a byte-level token; characters that stand for no byte, as in added tokens, are kept."""
    if BYTE_CHARACTERS.keys() >= {*token}:
        return bytes(BYTE_CHARACTERS[each] for each in token)
    return token.encode()


def _sentencepiece(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace(_WORD_START, " ").encode()


def _word_piece(token: str) -> bytes:
    return token.removeprefix("##").encode()


SPELLINGS: Final[Mapping[str, Spelling]] = {
    "byte_level": _byte_level,
    "sentencepiece": _sentencepiece,
    "word_piece": _word_piece,
}


def spelling_of(content: Mapping[str, Any]) -> str:
    """Return the name of the spelling of a tokenizer.json."""
    if is_byte_level(content):
        return "byte_level"
    return "word_piece" if content["model"]["type"] == "WordPiece" else "sentencepiece"


def is_byte_level(content: Mapping[str, Any]) -> bool:
    """Return whether the model of a tokenizer.json sees the bytes of a text as characters."""
    return any(
        step.get("type") == "ByteLevel" for key in ("normalizer", "pre_tokenizer") for step in _steps(content.get(key))
    )


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if step is not None:
        yield step
        for inner in (*step.get("pretokenizers", ()), *step.get("normalizers", ())):
            yield from _steps(inner)
