"""Ids of tokens that a config names, at any depth, and their renumbering."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from core.engine.removals.vocabulary.tokenizers.refusal import refusal
from secateur_wire.base import JsonObject

_SIZE: Final = "vocab_size"
_SIZES: Final = re.compile(r"((text|padded|encoder|decoder)_)?vocab_size|n_vocab")
"""Keys that hold the number of rows of the vocabulary."""
_IDS: Final = re.compile(
    r"(?!codebook_)(.+_)?(token|bos|eos|pad|sep|cls|mask|unk)_(id|ids|index|indices|idx)|padding_idx|"
    r"(begin_)?suppress_tokens|bad_words_ids|force_words_ids|(lang|lang_code|task|language)_to_id"
)
"""Keys that hold ids of tokens as transformers names them: numbers, or lists or objects of numbers."""
_PAIRS: Final[Mapping[str, int]] = {"forced_decoder_ids": 1, "sequence_bias": 0}
"""Keys that hold a list of pairs, and the place of the ids in a pair; the other place has a position, or a bias."""


def config_ids(config: Mapping[str, Any], size: int) -> set[int]:
    """Return the ids that a config names at any depth, of a text vocabulary of `size` rows.

    `config` is the content of config.json, of generation_config.json, or of another file beside them. A part with a
    `vocab_size` of its own, as a model of sound has it, names ids of another vocabulary and is left out. Numbers that
    are no row, as -100, are left out too.
    """
    ids: set[int] = set()

    def add(number: int) -> int:
        ids.add(number)
        return number

    _Renumbering(size, size, add).config(config)
    return ids


def renumbered(config: Mapping[str, Any], kept: Sequence[int], *, size: int) -> JsonObject:
    """Return a config with new ids at any depth, and `vocab_size` wherever it is the text's `size`.

    The kept ids ascend; the new ids are their places. Raises InvalidRequest where an id that the config names is not
    kept, as one of a row that has no token.
    """
    numbers = {old: new for new, old in enumerate(kept)}

    def number_of(old: int) -> int:
        if old not in numbers:
            raise refusal(f"has no kept token of the id {old}, which the config names")
        return numbers[old]

    return _Renumbering(size, len(kept), number_of).config(config)


class _Renumbering:
    """Change of every id in a config, and of the vocabulary's size from `size` to `new_size`."""

    def __init__(self, size: int, new_size: int, change: Callable[[int], int]) -> None:
        self._size = size
        self._new_size = new_size
        self._change = change

    def config(self, config: Mapping[str, Any]) -> JsonObject:
        return {key: self._entry(key, value) for key, value in config.items()}

    def _entry(self, key: str, value: Any) -> Any:
        if _SIZES.fullmatch(key) and value == self._size:
            return self._new_size
        if _IDS.fullmatch(key):
            return self._ids(value)
        if key in _PAIRS and isinstance(value, list):
            return [self._pair(each, _PAIRS[key]) for each in value]
        return self._part(value)

    def _part(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._part(each) for each in value]
        if isinstance(value, dict) and value.get(_SIZE, self._size) == self._size:
            return self.config(value)
        return value

    def _ids(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._ids(each) for each in value]
        if isinstance(value, dict):
            return {key: self._ids(each) for key, each in value.items()}
        is_row = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < self._size
        return self._change(value) if is_row else value

    def _pair(self, pair: Any, place: int) -> Any:
        if not isinstance(pair, list):
            return pair
        return [self._ids(each) if index == place else each for index, each in enumerate(pair)]
