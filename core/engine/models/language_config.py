"""Language model's part of a parsed config."""

from functools import reduce

from transformers import PretrainedConfig

from core.engine.architectures.architecture import Architecture


def language_config(config: PretrainedConfig, family: Architecture) -> PretrainedConfig:
    """Return the config of a family's language model: its part of a config that describes more, or the whole config."""
    part: PretrainedConfig = reduce(getattr, family.config_path, config)
    return part
