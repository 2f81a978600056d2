"""Config of a model that keeps some of its tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.architectures.architecture import VOCABULARY_KEY, Architecture
from core.engine.architectures.config_part import part_of, with_part
from core.engine.removals.vocabulary.tokenizers.config_ids import renumbered


def reduced_config(config: Mapping[str, Any], kept: Sequence[int], family: Architecture) -> dict[str, Any]:
    """Return config.json of the model that keeps these tokens, ids in ascending order.

    A setting that counts the first tokens only, as for a second table of embeddings, counts those of them that stay.
    Raises InvalidRequest where an id that the config names is not kept.
    """
    counts = {
        family.config_key(config, name): sum(each < family.config_value(config, name) for each in kept)
        for name in family.vocabulary_settings
    }
    reduced = renumbered(config, kept, size=family.config_value(config, VOCABULARY_KEY))
    return with_part(reduced, family.config_path, {**part_of(reduced, family.config_path), **counts})
