"""Config of a model that keeps some of its tokens."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

from core.engine.architectures.architecture import VOCABULARY_KEY, Architecture
from core.engine.architectures.config import part_of, with_part
from core.engine.vocabulary.files import config_ids, renumbered


def reduced_config(
    config: Mapping[str, Any], kept: Sequence[int], family: Architecture, opened: PretrainedConfig
) -> dict[str, Any]:
    """Return config.json of the model that keeps these tokens, ids in ascending order; `opened` is its config object.

    Ids that config.json leaves to the defaults of its class are written down, because the same tokens have other ids. A
    setting that counts the first tokens only, as for a second table of embeddings, counts those of them that stay.
    Raises InvalidRequest where an id that the config names is not kept.
    """
    size = family.config_value(config, VOCABULARY_KEY)
    counts = {
        family.config_key(config, name): sum(each < family.config_value(config, name) for each in kept)
        for name in family.vocabulary_settings
    }
    reduced = renumbered(_with_default_ids(config, opened, size), kept, size=size)
    return with_part(reduced, family.config_path, {**part_of(reduced, family.config_path), **counts})


def required_ids(config: Mapping[str, Any], family: Architecture, opened: PretrainedConfig) -> set[int]:
    """Return the ids that a config names, those of the defaults of its class among them: their tokens must stay."""
    size = family.config_value(config, VOCABULARY_KEY)
    return config_ids(_with_default_ids(config, opened, size), size)


def _with_default_ids(config: Mapping[str, Any], opened: PretrainedConfig, size: int) -> dict[str, Any]:
    """Return a config with the ids that it leaves to the defaults of its class, at any depth."""
    named = {*config, *(opened.attribute_map.get(name, name) for name in config)}
    every = json.loads(opened.to_json_string(use_diff=False))
    defaults = {
        name: value
        for name, value in every.items()
        if name not in named and name not in opened.sub_configs and config_ids({name: value}, size)
    }
    inside = {
        name: _with_default_ids(config[name], part, size)
        for name in opened.sub_configs
        if isinstance(part := getattr(opened, name, None), PretrainedConfig) and isinstance(config.get(name), Mapping)
    }
    return {**config, **defaults, **inside}
