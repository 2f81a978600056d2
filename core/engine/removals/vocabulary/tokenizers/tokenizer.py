"""Base class of the tokenizers that can be cut, and what all kinds share: ids outside the model, and renumbering."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Final

from tokenizers import Tokenizer as RustTokenizer

from core.engine.removals.vocabulary.tokenizers.refusal import refusal
from core.engine.removals.vocabulary.tokenizers.spelling import SPELLINGS, Spelling, spelling_of
from secateur_wire.base import JsonObject

_FIRST_IDS: Final = {"BertProcessing": ("sep", "cls"), "RobertaProcessing": ("sep", "cls")}
"""Post-processors that name tokens as pairs of text and id, and the keys that hold the pairs."""
_WITHOUT_IDS: Final = ("ByteLevel",)


class Tokenizer(ABC):
    """Tokenizer of a tokenizer.json, which can be cut to some of its tokens.

    A *kept text* is a text that the dense tokenizer writes with kept tokens alone. If the kept tokens hold `required`
    and are closed (`closure`), then the tokenizer that `reduced` returns writes every kept text with the same tokens.

    `tokens` are the texts of the tokens, as the file has them, by id, with the added tokens. The ids of some
    vocabularies have gaps.
    """

    def __init__(self, content: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
        self._content = content
        self._vocabulary = vocabulary
        """Ids of the tokens of the model, which are not all: added tokens may have ids of their own."""
        self.tokens: dict[int, str] = {number: token for token, number in vocabulary.items()}
        if len(self.tokens) < len(vocabulary):
            raise refusal("has two tokens of the same id")
        self._added = frozenset(self._add_tokens())

    @property
    def size(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    @property
    def model(self) -> Mapping[str, Any]:
        """Return the part `model` of the file."""
        model: Mapping[str, Any] = self._content["model"]
        return model

    @cached_property
    def required(self) -> frozenset[int]:
        """Return the ids that always stay: added tokens, tokens that the file names, and those of the model."""
        return frozenset(
            {*self._added, *_processor_ids(self._content.get("post_processor")), *self._padding(), *self._always()}
        )

    @abstractmethod
    def _always(self) -> Iterable[int]:
        """Return the ids that the model needs for every text, as bytes and the unknown token."""

    @abstractmethod
    def closure(self, ids: Iterable[int]) -> frozenset[int]:
        """Return the ids together with those that any text needs on the way to them."""

    @abstractmethod
    def is_reachable(self, token: int) -> bool:
        """Return whether some text has this token; a few tokens of trained vocabularies occur in none."""

    @abstractmethod
    def rank(self, token: int) -> int:
        """Return the place of a token by its frequency in the texts of its training, from 0, the most frequent."""

    def uses(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Return how often each token is needed to tokenize texts with these counts of tokens: here, the counts."""
        return dict(counts)

    @abstractmethod
    def _reduced_model(self, numbers: Mapping[int, int]) -> JsonObject:
        """Return the part `model` with the tokens of `numbers`, which are new ids by old ones."""

    def reduced(self, kept: Sequence[int]) -> JsonObject:
        """Return the tokenizer.json with the kept tokens alone, renumbered in the ascending order of their ids.

        The kept ids ascend, hold `required` and are closed. Normalizer, pre-tokenizer and decoder do not change.
        """
        numbers = {old: new for new, old in enumerate(kept)}
        assert list(kept) == sorted(numbers) and numbers.keys() >= self.required
        content = dict(self._content)
        content["model"] = self._reduced_model(numbers)
        content["added_tokens"] = [each | {"id": numbers[each["id"]]} for each in content.get("added_tokens") or ()]
        content["post_processor"] = _renumbered_processor(content.get("post_processor"), numbers)
        if content.get("padding"):
            content["padding"] = content["padding"] | {"pad_id": numbers[content["padding"]["pad_id"]]}
        return content

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without special tokens around it."""
        ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        return ids

    def spelled(self, token: int) -> bytes:
        """Return the UTF-8 bytes for which a token stands, with spaces for marks of spaces; not all are whole texts."""
        return self._spelling(self.tokens[token])

    def is_added(self, token: int) -> bool:
        """Return whether this is an added token, which is looked for in a text before the model sees it."""
        return token in self._added

    @cached_property
    def _spelling(self) -> Spelling:
        return SPELLINGS[spelling_of(self._content)]

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

    def _padding(self) -> Iterable[int]:
        padding = self._content.get("padding")
        return () if not padding else (padding["pad_id"],)


def without_others(vocabulary: Mapping[str, int], numbers: Mapping[int, int]) -> dict[str, int]:
    """Return a model's vocabulary with the tokens of `numbers` alone, by their new ids."""
    return {token: numbers[number] for token, number in vocabulary.items() if number in numbers}


def _processor_ids(processor: Mapping[str, Any] | None) -> Collection[int]:
    """Return the ids that a post-processor puts around texts; raises InvalidRequest for an unknown kind."""
    if processor is None or processor["type"] in _WITHOUT_IDS:
        return ()
    kind = processor["type"]
    if kind == "Sequence":
        return list(chain.from_iterable(map(_processor_ids, processor["processors"])))
    if kind == "TemplateProcessing":
        return [number for each in processor["special_tokens"].values() for number in each["ids"]]
    if kind in _FIRST_IDS:
        return [processor[key][1] for key in _FIRST_IDS[kind]]
    raise refusal(f"ends with a post-processor of the unknown kind {kind!r}")


def _renumbered_processor(processor: Mapping[str, Any] | None, numbers: Mapping[int, int]) -> JsonObject | None:
    if processor is None or processor["type"] in _WITHOUT_IDS:
        return None if processor is None else dict(processor)
    kind = processor["type"]
    if kind == "Sequence":
        return dict(processor) | {
            "processors": [_renumbered_processor(each, numbers) for each in processor["processors"]]
        }
    if kind == "TemplateProcessing":
        special = {
            name: each | {"ids": [numbers[number] for number in each["ids"]]}
            for name, each in processor["special_tokens"].items()
        }
        return dict(processor) | {"special_tokens": special}
    return dict(processor) | {key: [processor[key][0], numbers[processor[key][1]]] for key in _FIRST_IDS[kind]}
