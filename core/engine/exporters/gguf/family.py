"""Families of GGUF: an architecture of transformers, its counterparts in llama.cpp, and their limits."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from core.engine.exporters.exporter_info import PARAM
from secateur_wire.errors import InvalidRequest

if TYPE_CHECKING:  # the API describes exports without loading torch or numpy
    import numpy as np
    from numpy.typing import NDArray

Config: TypeAlias = Mapping[str, Any]
"""Config of transformers as a dictionary, with the defaults of its class."""
Floats: TypeAlias = "NDArray[np.float32]"
Keys: TypeAlias = dict[str, bool | int | float | str | list[int]]
"""Metadata of a file, by their names after the prefix of llama.cpp's architecture."""
Part: TypeAlias = "Callable[[int, Keys, Floats], Floats]"
"""Part of a parameter that one tensor of a file has, from the layer's number of heads, the keys, and the parameter."""


@dataclass(frozen=True)
class GgufForm:
    """Architecture of llama.cpp, and its abilities.

    `has_head_size`: heads may have any number and size; otherwise together they are as wide as the model. `has_layers`:
    each layer may have its own shape. `rotates_neighbours`: rotary embeddings turn pairs of neighbours, where the
    model's turn the halves of a head. `rotates_all`: rotary embeddings turn whole heads; a factor stops the pairs that
    must not turn. `scales_rotary`: pairs may turn slower, each by its own factor. `has_yarn`: rotary embeddings may be
    scaled as in YaRN. `has_dense_lead`: layers before the first with experts may have one FFN. `has_biases`: the
    outputs of attention and FFN may have biases. `is_tied`: the head must be the embeddings, or must not be; None
    allows both. `parts` are the tensors into which a fused module's rows are split, by the module's name in a block.
    `joined` are modules of a block whose rows are one tensor, by the tensor's name.
    """

    name: str
    has_head_size: bool = False
    has_layers: bool = False
    rotates_neighbours: bool = False
    rotates_all: bool = False
    scales_rotary: bool = False
    has_yarn: bool = False
    has_dense_lead: bool = False
    has_biases: bool = False
    is_tied: bool | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def supports(self, *, has_own_head_size: bool, has_different_layers: bool) -> bool:
        """Return True if this form can hold a model with these properties."""
        return (self.has_head_size or not has_own_head_size) and (self.has_layers or not has_different_layers)


@dataclass(frozen=True)
class GgufFamily:
    """Architecture of transformers, and its counterparts in llama.cpp, whose tensors gguf's map of names gives.

    `forms` are the possible llama.cpp architectures; the first that can hold a model is used. `activations` are those
    that llama.cpp computes. `norm_offset` is added to the weights of norms. `requires` are the only values of settings
    that llama.cpp computes. `own_keys` returns the metadata that only this family has, or raises the refusal of other
    settings. `reorder` puts a tensor's rows into llama.cpp's order; its functions are named by the tensor in llama.cpp
    and get the number of heads. `slides`: llama.cpp has its sliding windows. With `layers_are_numbered`, llama.cpp
    computes a layer by its number, so that no earlier layer may be missing. `parameters` are those of a block that the
    map does not name, or that are split: by their names in a block, the tensors' names in a block of the file, and the
    part that each has. Stacks of experts are among them.
    """

    forms: tuple[GgufForm, ...]
    activations: Sequence[str] = ("silu",)
    norm_offset: float = 0.0
    requires: Mapping[str, object] = field(default_factory=dict, hash=False)
    own_keys: Callable[[Config], Keys] = lambda config: {}
    reorder: Mapping[str, Callable[[Floats, int], Floats]] = field(default_factory=dict, hash=False)
    slides: bool = False
    layers_are_numbered: bool = False
    parameters: Mapping[str, Mapping[str, Part]] = field(default_factory=dict, hash=False)

    @property
    def is_mixture(self) -> bool:
        return any(".experts." in each for each in self.parameters)

    def form_of(self, *, has_own_head_size: bool, has_different_layers: bool) -> GgufForm | None:
        """Return the first form that can hold such a model; None where none can."""
        return next(
            (
                each
                for each in self.forms
                if each.supports(has_own_head_size=has_own_head_size, has_different_layers=has_different_layers)
            ),
            None,
        )

    def keys(self, config: Config) -> Keys:
        """Return the metadata that only this family has; raises the refusal of what llama.cpp does not compute."""
        for name, value in self.requires.items():
            require(config, name, value)
        return self.own_keys(config)


def require(config: Config, name: str, value: object) -> None:
    """Require the only value of a setting that llama.cpp computes; raises its refusal."""
    own = bool(config[name]) if isinstance(value, bool) else config[name]
    if own != value:
        raise refusal(f"{name} {json.dumps(own)}", f"{name} {json.dumps(value)}")


def refusal(what: str, would_do: str) -> InvalidRequest:
    """Return the error that a model has an unsupported property; it names the supported alternative."""
    return InvalidRequest(
        f"{PARAM}: this model has {what}, but GGUF files can be written only for models with {would_do}: leave gguf "
        "out, or choose such a model",
        param=PARAM,
    )


def window_period(is_sliding: Sequence[bool], usual: int) -> int | None:
    """Return the number of layers after which the window pattern repeats; its last layer attends to all tokens.

    `usual` is tried first. None for other patterns, which llama.cpp does not support.
    """
    periods = (usual, *range(1, len(is_sliding) + 2))
    return next(
        (
            period
            for period in periods
            if all(slides == (layer % period < period - 1) for layer, slides in enumerate(is_sliding))
        ),
        None,
    )
