"""Settings of a config that count tokens, and those that name one, for a model that keeps some of its tokens."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.config_part import part_of, with_part

_ID: Final = re.compile(r"(.+_)?token_(ids?|index|indices)|(pad|bos|eos|unk|sep|mask)_index")


def reduced_config(config: Mapping[str, Any], kept: Sequence[int], family: Architecture) -> dict[str, Any]:
    """Return config.json of the model that keeps these tokens, ids in ascending order.

    A setting that counts the first tokens only, as for a second table of embeddings, counts those of them that stay.
    """
    counts = {
        family.config_key(config, name): sum(each < family.config_value(config, name) for each in kept)
        for name in family.vocabulary_settings
    }
    reduced = renumbered(config, kept)
    return with_part(reduced, family.config_path, {**part_of(reduced, family.config_path), **counts})


def renumbered(config: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return a config whose ids of tokens are those of a model that keeps these tokens."""
    places = {old: new for new, old in enumerate(kept)}
    return _renumbered(config, lambda name, value: places.get(value, value) if _ID.fullmatch(name) else value)


def _renumbered(config: Mapping[str, Any], change: Callable[[str, int], int]) -> dict[str, Any]:
    def renumber(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _renumbered(value, change)
        if isinstance(value, list | tuple):
            return [renumber(name, each) for each in value]
        return change(name, value) if type(value) is int else value

    return {name: renumber(name, value) for name, value in config.items()}


def config_ids(config: Mapping[str, Any]) -> set[int]:
    """Return the ids of tokens that a config names, at any depth."""
    found: set[int] = set()

    def note(name: str, value: int) -> int:
        if _ID.fullmatch(name):
            found.add(value)
        return value

    _renumbered(config, note)
    return found
