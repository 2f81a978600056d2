"""Base class of the tokenizers that can be cut, and what all kinds share: spelling, ids outside the model, new ids."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from tokenizers import Tokenizer as RustTokenizer

from secateur_wire.base import JsonObject
from secateur_wire.errors import InvalidRequest

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_START: Final = "\u2581"
"""Character that stands for a space in the tokens of SentencePiece."""


def refusal(reason: str) -> InvalidRequest:
    """Return the error for a tokenizer that cannot be cut exactly; the reason completes `the model's tokenizer …`."""
    return InvalidRequest(
        f"vocabulary: the model's tokenizer {reason}; a vocabulary is cut only where texts are certain to be tokenized "
        "as before: keep the whole vocabulary, or choose a model with another tokenizer",
        param="vocabulary",
    )


def _byte_characters() -> dict[str, int]:
    """Return the bytes by the characters that stand for them in byte-level vocabularies, as GPT-2 has them.

    Printable characters of Latin-1 stand for themselves, all other bytes in order for the characters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_CHARACTERS: Final = _byte_characters()
BYTE_TOKENS: Final = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Tokens of single bytes in a vocabulary with byte fallback."""


class Tokenizer(ABC):
    """Tokenizer of a tokenizer.json, which can be cut to some of its tokens.

    A *kept text* is a text that the dense tokenizer writes with kept tokens alone. If the kept tokens hold `required`
    and are closed (`closure`), then the tokenizer that `reduced` returns writes every kept text with the same tokens.

    `tokens` are the texts of the tokens, as the file has them, by id, with the added tokens. The ids of some
    vocabularies have gaps. `added` are the ids of added tokens, which are looked for in a text before the model sees
    it. `model` is the part `model` of the file.
    """

    def __init__(self, content: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
        self._content = content
        self._vocabulary = vocabulary
        """Ids of the tokens of the model, which are not all: added tokens may have ids of their own."""
        self.model: Mapping[str, Any] = content["model"]
        self.tokens: dict[int, str] = {number: token for token, number in vocabulary.items()}
        if len(self.tokens) < len(vocabulary):
            raise refusal("has two tokens of the same id")
        self.added = frozenset(self._add_tokens())

    @property
    def size(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    @cached_property
    def required(self) -> frozenset[int]:
        """Return the ids that always stay: added tokens, tokens that the file names, and those of the model."""
        named: list[int] = []

        def note(number: int) -> int:
            named.append(number)
            return number

        self._renumbered_ends(note)
        return frozenset({*self.added, *named, *self._always()})

    @abstractmethod
    def _always(self) -> Iterable[int]:
        """Return the ids that the model needs for every text, as bytes and the unknown token."""

    def closure(self, ids: Iterable[int]) -> frozenset[int]:
        """Return the ids together with those that any text needs on the way to them: here, none."""
        return frozenset(ids)

    def is_reachable(self, token: int) -> bool:
        """Return whether some text has this token; a few tokens of trained vocabularies occur in none."""
        return True

    @abstractmethod
    def rank(self, token: int) -> int:
        """Return the place of a token by its frequency in the texts of its training, from 0, the most frequent."""

    def uses(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Return how often each token is needed to tokenize texts with these counts of tokens: here, the counts."""
        return dict(counts)

    @abstractmethod
    def _reduced_model(self, numbers: Mapping[int, int]) -> Mapping[str, Any]:
        """Return the entries of `model` that change with the tokens of `numbers`, which are new ids by old ones."""

    def reduced(self, kept: Sequence[int]) -> JsonObject:
        """Return the tokenizer.json with the kept tokens alone, renumbered in the ascending order of their ids.

        The kept ids ascend, hold `required` and are closed. Normalizer, pre-tokenizer and decoder do not change.
        """
        numbers = {old: new for new, old in enumerate(kept)}
        assert list(kept) == sorted(numbers) and numbers.keys() >= self.required
        return {
            **self._content,
            "model": {**self.model, **self._reduced_model(numbers)},
            "added_tokens": [each | {"id": numbers[each["id"]]} for each in self._content.get("added_tokens") or ()],
            **self._renumbered_ends(numbers.__getitem__),
        }

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without special tokens around it."""
        ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        return ids

    def spelled(self, token: int) -> bytes:
        """Return the UTF-8 bytes for which a token stands, with spaces for marks of spaces; not all are whole texts.

        Characters of a byte-level token that stand for no byte, as in added tokens, are kept.
        """
        text = self.tokens[token]
        if self.is_byte_level:
            is_bytes = BYTE_CHARACTERS.keys() >= {*text}
            return bytes(BYTE_CHARACTERS[each] for each in text) if is_bytes else text.encode()
        if self.model["type"] == "WordPiece":
            return text.removeprefix("##").encode()
        byte = _BYTE_TOKEN.fullmatch(text)
        return bytes.fromhex(byte[1]) if byte else text.replace(_WORD_START, " ").encode()

    @cached_property
    def is_byte_level(self) -> bool:
        """Return whether the model sees the bytes of a text as characters."""
        steps = (step for key in ("normalizer", "pre_tokenizer") for step in _steps(self._content.get(key)))
        return any(step.get("type") == "ByteLevel" for step in steps)

    @cached_property
    def _rust(self) -> RustTokenizer:
        return RustTokenizer.from_str(json.dumps(self._content))

    def _add_tokens(self) -> Iterable[int]:
        """Add the added tokens to `tokens` and yield their ids.

        The library numbers those that the model does not have after its tokens, whatever the file says. Raises
        InvalidRequest where the file says something else, since the cut file would be numbered otherwise too.
        """
        following = len(self._vocabulary)
        highest = max(self._vocabulary.values(), default=-1)
        for each in self._content.get("added_tokens") or ():
            number, text = each["id"], each["content"]
            expected = self._vocabulary.get(text, following)
            if number != expected or (text not in self._vocabulary and number <= highest):
                raise refusal(
                    f"gives the added token {text[:100]!r} the id {number}, where its library counts {expected}"
                )
            following = max(following, number + 1)
            self.tokens[number] = text
            yield number

    def _renumbered_ends(self, change: Callable[[int], int]) -> JsonObject:
        """Return the parts of the file that put tokens around texts with other ids; raises InvalidRequest."""
        processor, padding = self._content.get("post_processor"), self._content.get("padding")
        ends: JsonObject = {"post_processor": None if processor is None else _renumbered_processor(processor, change)}
        return ends if not padding else {**ends, "padding": padding | {"pad_id": change(padding["pad_id"])}}


def without_others(vocabulary: Mapping[str, int], numbers: Mapping[int, int]) -> dict[str, int]:
    """Return a model's vocabulary with the tokens of `numbers` alone, by their new ids."""
    return {token: numbers[number] for token, number in vocabulary.items() if number in numbers}


def _renumbered_processor(processor: Mapping[str, Any], change: Callable[[int], int]) -> JsonObject:
    """Return a post-processor with other ids; raises InvalidRequest for an unknown kind."""
    kind, changed = processor["type"], dict(processor)
    if kind == "Sequence":
        changed["processors"] = [_renumbered_processor(each, change) for each in processor["processors"]]
    elif kind == "TemplateProcessing":
        special = processor["special_tokens"]
        changed["special_tokens"] = {
            name: each | {"ids": [change(number) for number in each["ids"]]} for name, each in special.items()
        }
    elif kind in ("BertProcessing", "RobertaProcessing"):
        changed |= {key: [processor[key][0], change(processor[key][1])] for key in ("sep", "cls")}
    elif kind != "ByteLevel":
        raise refusal(f"ends with a post-processor of the unknown kind {kind!r}")
    return changed


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if step is not None:
        yield step
        for inner in (*step.get("pretokenizers", ()), *step.get("normalizers", ())):
            yield from _steps(inner)
