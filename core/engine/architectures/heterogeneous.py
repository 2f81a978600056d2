"""Checkpoints whose decoder layers differ in shape: the extra keys of config.json, and the modelling file.

The modelling file builds them in `from_pretrained`; config.json has, beyond the keys of the family:

    "architectures": ["PerLayerLlamaForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_secateur.PerLayerLlamaForCausalLM"},
    "secateur_layers": [{}, {"intermediate_size": 1024, "num_attention_heads": 6, "num_key_value_heads": 2}, ...]

`secateur_layers` has one object per decoder layer with the settings in which it differs from the rest of config.json,
or of the language model's part of it.

Only verified artifacts of this service may have these keys; the file they name is never executed to open them as input
(`core.engine.models.loading` builds the same layers).
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.units import BLOCK_KINDS, axis_dimension, run_name
from secateur_wire.errors import UnsafeConfig, UnusableModel
from secateur_wire.job_body import Layout as Layout

LAYERS_KEY: Final = "secateur_layers"
AUTO_MAP_KEY: Final = "auto_map"
MODELLING_FILE: Final = "modeling_secateur.py"
_PREFIX = "PerLayer"

_MODELLING = '''\
"""{title} whose decoder layers differ in shape. For transformers 5; needs nothing else:

    AutoModelForCausalLM.from_pretrained("path/to/this/folder", trust_remote_code=True)

"{layers_key}" in config.json has one object per decoder layer with the settings in which it differs from the rest.
"""

import copy

from transformers import {architecture}


class {name}({architecture}):
    def __init__(self, config):
        super().__init__(config)
        layers = self.get_submodule("{blocks}")
        self._layer_configs = []
        for index, changes in enumerate(config.{layers_key}):
            if changes:
                own = copy.deepcopy(self.config{part})
                for setting, value in changes.items():
                    setattr(own, setting, value)
                own._attn_implementation = self.config{part}._attn_implementation
                self._layer_configs.append(own)
                layers[index] = type(layers[index])(own, index)
        self.post_init()

    def set_attn_implementation(self, *arguments, **keywords):
        super().set_attn_implementation(*arguments, **keywords)
        for own in self._layer_configs:
            own._attn_implementation = self.config{part}._attn_implementation
'''

_NARROWING = '''\
"""{title} whose decoder layers differ in width. For transformers 5; needs nothing else:

    AutoModelForCausalLM.from_pretrained("path/to/this/folder", trust_remote_code=True)

"{layers_key}" in config.json has one object per decoder layer: the channels of its FFN, where it lost some.
"""

from transformers import {architecture}

LINEARS = {{
    {linears}
}}  # whether channels are outputs, the dimension of the weight that has them, and how many of its features each is


def narrow(layer, channels):
    for name, (is_output, dimension, features) in LINEARS.items():
        linear = layer.get_submodule(name)
        for attribute in ("out_features", "nf") if is_output else ("in_features", "nx"):
            if hasattr(linear, attribute):
                setattr(linear, attribute, channels * features)
        for attribute in ("weight", "bias") if is_output else ("weight",):
            parameter = getattr(linear, attribute, None)
            if parameter is not None:
                shape = list(parameter.shape)
                shape[dimension if len(shape) > 1 else 0] = channels * features
                setattr(linear, attribute, type(parameter)(parameter.new_empty(shape)))


class {name}({architecture}):
    def __init__(self, config):
        super().__init__(config)
        for layer, changes in zip(self.get_submodule("{blocks}"), config.{layers_key}):
            if changes:
                narrow(layer, changes["{width_key}"])
        self.post_init()
'''


class ChannelFeatures(NamedTuple):
    """Features of the channels in a linear layer: how many each channel has, and their `dimension` in the weight."""

    is_output: bool
    dimension: int
    features: int


def channel_features(family: Architecture) -> dict[str, ChannelFeatures]:
    """Return the features of the channels in each linear layer of a block."""
    return {
        axis.module: ChannelFeatures(
            axis.side == "out", axis_dimension(family, axis, 2), sum(factor for _, factor in map(run_name, axis.runs))
        )
        for axis in family.axes("channels")
    }


def modelling_file(family: Architecture) -> str:
    """Return the text of a family's modelling file, which imports nothing but transformers."""
    template = _NARROWING if family.has_own_widths else _MODELLING
    return template.format(
        title=family.title,
        name=class_name(family),
        architecture=family.architecture,
        blocks=family.blocks,
        layers_key=LAYERS_KEY,
        part="".join(f".{key}" for key in family.config_path),
        width_key=family.width_key,
        linears="\n    ".join(f'"{name}": {tuple(each)},' for name, each in channel_features(family).items()),
    )


def class_name(family: Architecture) -> str:
    """Return the name of the model class in the modelling file, which makes engines refuse an unknown class."""
    return _PREFIX + family.architecture


def per_layer_config(
    config: Mapping[str, Any], family: Architecture, layers: Sequence[Mapping[str, int]]
) -> dict[str, Any]:
    """Return config.json with the settings of each layer; without them, the family's ordinary config.json."""
    changed = {key: value for key, value in config.items() if key not in (LAYERS_KEY, AUTO_MAP_KEY)}
    if not any(layers):
        return changed | {"architectures": [family.architecture]}
    ours = {"architectures": [class_name(family)], AUTO_MAP_KEY: _auto_map(family)}
    return changed | ours | {LAYERS_KEY: [dict(each) for each in layers]}


def layer_settings(config: Mapping[str, Any]) -> list[Mapping[str, int]] | None:
    """Return each layer's settings from the config of an artifact of this service; None where all layers are alike."""
    layers: list[Mapping[str, int]] | None = config.get(LAYERS_KEY)
    return layers


def per_layer_architecture(config: Mapping[str, Any], discovered: Architecture | None = None) -> Architecture | None:
    """Return the architecture of a config whose layers differ, declared or discovered; None for an ordinary config.

    Raises UnsafeConfig for code that is not this service's, UnusableModel for settings that no version of it writes.
    """
    if AUTO_MAP_KEY not in config and LAYERS_KEY not in config:
        return None
    families = {family.model_type: family for family in LANGUAGE_ARCHITECTURES.values()}
    if discovered is not None:
        families.setdefault(discovered.model_type, discovered)
    family = families.get(str(config.get("model_type")))
    if family is None or config.get(AUTO_MAP_KEY) != _auto_map(family):
        raise UnsafeConfig(
            f"config.json holds {AUTO_MAP_KEY!r}, which selects code to run, and the code is not that of an "
            "artifact of this service",
            param="model",
        )
    layers = config.get(LAYERS_KEY)
    known = {key for kind in BLOCK_KINDS for key in kind.settings(family)}
    if (
        not isinstance(layers, list)
        or len(layers) != family.config_value(config, "num_hidden_layers")
        or not all(
            isinstance(each, dict)
            and each.keys() <= known
            and all(type(value) is int and value > 0 for value in each.values())
            for each in layers
        )
    ):
        raise UnusableModel(
            f"config.json: {LAYERS_KEY!r} must have one object per layer with whole numbers for "
            f"{', '.join(sorted(known))}",
            param="model",
        )
    return family


def has_modelling_file(folder: Path, family: Architecture) -> bool:
    """Return True if the SHA-256 of a folder's modelling file is that of this version's file for the family."""
    file = folder / MODELLING_FILE
    wanted = hashlib.sha256(modelling_file(family).encode()).digest()
    return file.is_file() and hashlib.sha256(file.read_bytes()).digest() == wanted


def _auto_map(family: Architecture) -> dict[str, str]:
    return {"AutoModelForCausalLM": f"{MODELLING_FILE.removesuffix('.py')}.{class_name(family)}"}
