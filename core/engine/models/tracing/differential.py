"""Difference that one setting of the config makes to the shapes of a model's parameters.

A model's own constructor says so what has to be cut along with a unit, and whether its config can express the cut.
"""

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeAlias

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from core.engine.architectures.config_part import part_of, with_part
from core.engine.models.tracing.configuration import config_class, language_part, language_path

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Change: TypeAlias = tuple[str, int, int]
"""A parameter, the dimension of it that differs, and by how much."""


class Differential:
    """A config, and what becomes of its model's parameters when settings of its language model change."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """Take config.json; its settings are known here by the names that its class has for them."""
        self._class = config_class(raw)
        self._raw = {self._class.attribute_map.get(name, name): value for name, value in raw.items()}
        self._path = language_path(self._opened(self._raw))
        self.config = language_part(self._config({}))

    @cached_property
    def shapes(self) -> Shapes:
        """Return the shapes of the parameters of the model as it is."""
        return self._shapes(self._config({}))

    @cached_property
    def integers(self) -> dict[str, int]:
        """Return the settings that are whole numbers."""
        return {name: value for name, value in self.config.to_dict().items() if type(value) is int}

    @cached_property
    def unset(self) -> tuple[str, ...]:
        """Return the settings that have no value, so that others decide."""
        return tuple(name for name, value in self.config.to_dict().items() if value is None)

    @cached_property
    def alone(self) -> dict[str, frozenset[Change]]:
        """Return what adding one to each setting that is a whole number changes, where that makes a model."""
        alone = {}
        for name, value in self.integers.items():
            changes = self.changes({name: value + 1})
            if isinstance(changes, frozenset) and changes:
                alone[name] = changes
        return alone

    def raw_with(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return config.json with other settings."""
        return with_part(self._raw, self._path, {**part_of(self._raw, self._path), **settings})

    def config_with(self, settings: Mapping[str, Any]) -> PretrainedConfig | str:
        """Return the config with other settings, or why its class refuses them."""
        try:
            return self._config(settings)
        except Exception as error:  # config classes validate with whatever exception their authors chose
            return one_line(error)

    def changes(self, settings: Mapping[str, Any]) -> frozenset[Change] | str:
        """Return what other settings change; as words, why there is no such model or it has other parameters."""
        config = self.config_with(settings)
        if isinstance(config, str):
            return config
        try:
            after = self._shapes(config)
        except Exception as error:  # so do the constructors of models
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
    """Return the begin of an error's message in one line, or its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
