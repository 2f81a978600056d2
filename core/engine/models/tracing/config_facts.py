"""Facts of a config that an architecture names: its words for common settings, and its defaults."""

from transformers import PretrainedConfig

from core.engine.models.tracing.configuration import (
    Settings,
)

_READ_FROM_CONFIG = (
    "num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings", "num_attention_heads",
)  # fmt: skip


_NO_LIMIT = 2**15
"""Context length of a model that has no positions."""


def config_keys(config: PretrainedConfig) -> dict[str, str]:
    """Return the config's names for settings that are read, where they are not the common ones."""
    keys = {name: config.attribute_map[name] for name in _READ_FROM_CONFIG if name in config.attribute_map}
    return {name: key for name, key in keys.items() if key != name}


def config_defaults(config: PretrainedConfig, settings: Settings) -> dict[str, int]:
    """Return the values of settings that are read and that config.json leaves out."""
    keys = config_keys(config)
    defaults = {}
    for name in _READ_FROM_CONFIG:
        if keys.get(name, name) not in settings:
            value = config.to_dict().get(keys.get(name, name), _NO_LIMIT if name == "max_position_embeddings" else None)
            if type(value) is int:
                defaults[name] = value
    return defaults


def is_tied_by_default(config: PretrainedConfig, path: tuple[str, ...]) -> bool:
    """Return whether a config ties that does not say so, by its class; of one with parts, a part may say it instead."""
    return bool(getattr(config if path else type(config)(), "tie_word_embeddings", False))
