"""Effect of one setting of the config on the shapes of a model's parameters.

The model's own constructor thus tells what must shrink along with a unit, and if its config can express that.
"""

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeAlias

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from core.engine.architectures.config import part_of, with_part
from core.engine.discovery.configuration import config_class, language_part, language_path

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Change: TypeAlias = tuple[str, int, int]
"""Parameter, the dimension that differs, and the difference."""


class Differential:
    """Config, and the changes of its model's parameters when settings of its language model change."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """Take config.json; its settings are known here by the names of its class."""
        self._class = config_class(raw)
        self._raw = {self._class.attribute_map.get(name, name): value for name, value in raw.items()}
        self._path = language_path(self._opened(self._raw))
        self.config = language_part(self._config({}))

    @cached_property
    def shapes(self) -> Shapes:
        """Return the shapes of the parameters of the unchanged model."""
        return self._shapes(self._config({}))

    @cached_property
    def integers(self) -> dict[str, int]:
        return {name: value for name, value in self.config.to_dict().items() if type(value) is int}

    @cached_property
    def unset(self) -> tuple[str, ...]:
        """Return the settings without a value, which other settings determine."""
        return tuple(name for name, value in self.config.to_dict().items() if value is None)

    def raw_with(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return config.json with other settings."""
        return with_part(self._raw, self._path, {**part_of(self._raw, self._path), **settings})

    def with_settings(self, settings: Mapping[str, Any]) -> "Differential | None":
        """Return the differential of the config with other settings; None where no model can be built of it."""
        try:
            changed = Differential(self.raw_with(settings))
            return changed if changed.shapes else None
        except Exception:  # config classes and constructors validate with exceptions of any type
            return None

    def config_with(self, settings: Mapping[str, Any]) -> PretrainedConfig | str:
        """Return the config with other settings, or the reason why its class rejects them."""
        try:
            return self._config(settings)
        except Exception as error:  # config classes validate with exceptions of any type
            return one_line(error)

    def changes(self, settings: Mapping[str, Any]) -> frozenset[Change] | str:
        """Return the changes that other settings make, or the reason why no model has the same parameters."""
        config = self.config_with(settings)
        if isinstance(config, str):
            return config
        try:
            after = self._shapes(config)
        except Exception as error:  # the same holds for constructors of models
            return one_line(error)
        if after.keys() != self.shapes.keys():
            odd = sorted(after.keys() ^ self.shapes.keys())[0]
            return f"it adds or takes away parameters, as {odd}"
        changes = set()
        for name, shape in self.shapes.items():
            if len(after[name]) != len(shape):
                return f"it gives {name} another number of dimensions"
            changes |= {
                (name, dimension, new - old)
                for dimension, (old, new) in enumerate(zip(shape, after[name], strict=True))
                if new != old
            }
        return frozenset(changes)

    def _config(self, settings: Mapping[str, Any]) -> PretrainedConfig:
        return self._opened(self.raw_with(settings))

    def _opened(self, raw: Mapping[str, Any]) -> PretrainedConfig:
        config = self._class.from_dict(copy.deepcopy(dict(raw)))
        assert isinstance(config, PretrainedConfig)
        return config

    def _shapes(self, config: PretrainedConfig) -> Shapes:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        return {name: tuple(each.shape) for name, each in model.named_parameters()}


def one_line(error: Exception) -> str:
    """Return the beginning of an error's message in one line, or its type where the message is empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__
