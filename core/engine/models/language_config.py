"""The language model's part of a parsed config."""

from functools import reduce

from transformers import PretrainedConfig

from core.engine.architectures.architecture import Architecture


def language_config(config: PretrainedConfig, family: Architecture) -> PretrainedConfig:
    """Return the config of a family's language model: the part of a config that describes more, else all of it."""
    part: PretrainedConfig = reduce(getattr, family.config_path, config)
    return part
