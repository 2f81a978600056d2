"""Architecture of a language model: all that the engine must know of one.

It is declared once, in a module of `overrides`, or discovered from the model itself (`discovered`).

It names where its decoder blocks live and which linear layers of a block read the same input tensor: those
share one statistic and one factorisation. Everything else (rotary embeddings, masks, norms, soft caps) is the
model's own code, run as it is.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from core.engine.architectures.config_part import part_of
from core.engine.architectures.experts import Experts
from core.engine.architectures.unit_axis import UnitAxis
from core.engine.checkpoints.key_patterns import numbers_of, pattern_of
from core.engine.checkpoints.pieces import Pieces

COUNT_KEY: Final = "num_hidden_layers"
HEADS_KEY: Final = "num_attention_heads"
KV_HEADS_KEY: Final = "num_key_value_heads"
HEAD_DIM_KEY: Final = "head_dim"
"""Common names of settings, which a config may have by others."""
OWN_WIDTH_KEY: Final = "channels"
"""Name of the number of channels among the settings of a layer, where the config has none for it."""
CHANNELS_KIND: Final = "channels"
"""Name of the kind of unit that a channel of an FFN, or of an expert, is."""
EXPERTS_KIND: Final = "experts"
"""Name of the kind of unit that a whole expert is."""


@dataclass(frozen=True)
class Sublayer:
    """A part of a decoder block that adds to the residual stream once, as attention and FFN do.

    `groups` are its linear layers, grouped by the tensor they read, in order of execution; the last is its output
    alone. `units` has the axes of each kind of unit it is made of, and none for a kind that cannot be removed. `norm`
    reads the residual stream that the output is added to; None where anything lies between, as a norm or a factor (then
    only layers' own outputs are targets). `bias` is the config's setting that gives its linear layers biases, the
    output among them; None where no setting does.
    """

    groups: tuple[tuple[str, ...], ...]
    units: Mapping[str, tuple[UnitAxis, ...]] = field(default_factory=dict, hash=False)
    norm: str | None = None
    bias: str | None = None

    @classmethod
    def of(
        cls,
        inputs: tuple[str, ...],
        output: str,
        units: Mapping[str, tuple[UnitAxis, ...]],
        *,
        norm: str | None = None,
        bias: str | None = None,
    ) -> "Sublayer":
        """Return a sublayer whose output reads what the layers that read its own input give."""
        return cls((inputs, (output,)), units, norm, bias)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the linear layers that read the tensor it begins with."""
        return self.groups[0]

    @property
    def output(self) -> str:
        """Return the linear layer that gives what is added to the residual stream."""
        return self.groups[-1][0]


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    `order` is its place in lists of architectures, the smallest first. `blocks` is the module list of decoder layers,
    `base` the attribute of the causal model that holds the backbone (hub files of some families leave it out of their
    keys). `sublayers` are in order of execution; `inputs` are all linear layers of a block grouped by the tensor they
    read, in order of execution (those of the sublayers in turn, if not given). `transposed` marks weights stored as
    [in, out] (GPT-2's Conv1D). `stored_head` is the head's name in files where it is not that of the module.
    `width_key` is the config's name for the number of channels, `width_factor` how many times as many it says, and
    `width_settings` what else it has to have so that it does; where it `has_own_widths` no setting says it, and the
    modelling file of what is pruned makes the layers as narrow. `config_keys` its names for other settings, by their
    common names, where they differ; `config_defaults` are the values of settings, by their common names, that the
    config's class has where config.json leaves them out. `heads_divide_hidden`: the config insists that they do.
    `tied_by_default` says whether the config's class ties the head to the embeddings unless told otherwise;
    `lists_by_layer` are the config's lists with an entry for each layer.

    `block_kinds` are the distinct blocks, each as the sorted names of its parameters within the block; none where all
    blocks have all of them. A layer has those linear layers of `inputs` whose weights it has. `arguments`: those of a
    block follow from the length of the sequences alone, or from their tokens. `block_outputs` is the length of the
    tuple that a block returns; 0 for its hidden states alone. `renamed` has the module's name for each key of a file
    that is called otherwise, with `{}` for every number of a module list. `refused` says, by what is asked for, why
    this architecture cannot be offered it: `weights`, `channels`, `heads`, `layers`, `resume`, `uniform` or `per_layer`
    for layers that are to be alike or to differ, or anything for its `experts`. `required` are the outputs of sublayers
    of which a model needs one at least, in whichever block, to run. `pieced` says, by the pattern of its name in the
    model, how a tensor is made of those of files; what is pruned has it under its own name. `left_alone` are the linear
    layers of blocks that are not pruned, each with the reason. `experts` are those of its blocks, where some have any.
    `discovered_by` are the versions of the discovery and of transformers; None for what is declared.

    `config_path` are the keys that lead to the language model's settings in config.json, where that describes more: all
    settings named here are in that part. `other_modules` are those that such a model has beside its language
    model and that do not run on tokens alone, as towers for images and what projects their outputs; they are
    saved as they are.
    """

    model_type: str
    architecture: str
    title: str
    order: int
    base: str
    blocks: str
    head: str
    sublayers: tuple[Sublayer, ...]
    inputs: tuple[tuple[str, ...], ...] = ()
    width_key: str = "intermediate_size"
    width_factor: int = 1
    width_settings: Mapping[str, bool] = field(default_factory=dict, hash=False)
    has_own_widths: bool = False
    config_keys: Mapping[str, str] = field(default_factory=dict, hash=False)
    config_defaults: Mapping[str, int] = field(default_factory=dict, hash=False)
    heads_divide_hidden: bool = False
    tied_by_default: bool = False
    transposed: bool = False
    stored_head: str | None = None
    lists_by_layer: tuple[str, ...] = ("layer_types",)
    block_kinds: tuple[tuple[str, ...], ...] = ()
    arguments: Literal["length", "tokens"] = "length"
    block_outputs: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict, hash=False)
    refused: Mapping[str, str] = field(default_factory=dict, hash=False)
    required: tuple[str, ...] = ()
    pieced: Mapping[str, Pieces] = field(default_factory=dict, hash=False)
    left_alone: Mapping[str, str] = field(default_factory=dict, hash=False)
    experts: Experts | None = None
    discovered_by: str | None = None
    config_path: tuple[str, ...] = ()
    other_modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Group the linear layers by sublayer where nothing else is said."""
        if not self.inputs:
            object.__setattr__(self, "inputs", tuple(group for each in self.sublayers for group in each.groups))

    @property
    def added_to_stream(self) -> dict[str, str]:
        """Return the linear layers that add to the residual stream, each with the norm that reads it before."""
        return {each.output: each.norm for each in self.sublayers if each.norm is not None}

    def sublayer_of(self, kind: str) -> Sublayer | None:
        """Return the sublayer that is made of units of a kind; None where there is none."""
        return next((each for each in self.sublayers if kind in each.units), None)

    def axes(self, kind: str) -> tuple[UnitAxis, ...]:
        """Return the axes of a kind of unit; none where it cannot be removed."""
        if kind == EXPERTS_KIND:
            routing = None if self.experts is None else self.experts.routing
            return () if routing is None else tuple(UnitAxis(name, "out", ("expert",)) for name in routing.rows)
        if kind == CHANNELS_KIND and self.experts is not None:
            channels = None if kind in self.refused else self.experts.channels
            return () if channels is None else channels.axes
        sublayer = self.sublayer_of(kind)
        return () if sublayer is None or kind in self.refused else sublayer.units[kind]

    def reading_weight(self, kind: str) -> str:
        """Return the weight, by name within the block, that reads what units of a kind that can be removed give."""
        if self.experts is not None and kind in (CHANNELS_KIND, EXPERTS_KIND):
            return self.experts.parameter(self.experts.giving)
        sublayer = self.sublayer_of(kind)
        assert sublayer is not None
        return f"{sublayer.output}.weight"

    @property
    def linears(self) -> tuple[str, ...]:
        """Return all prunable linear layers of a block, relative to the block."""
        return tuple(name for group in self.inputs for name in group)

    def linears_of(self, parameters: Collection[str]) -> tuple[str, ...]:
        """Return the prunable linear layers of a block that has these parameters, all relative to the block.

        Where all blocks have all of them they are not looked for.
        """
        if not self.block_kinds:
            return self.linears
        return tuple(name for name in self.linears if f"{name}.weight" in parameters)

    def config_key(self, config: Mapping[str, Any], setting: str) -> str:
        """Return the name config.json has for a setting: this architecture's own, or else its common one."""
        own, settings = self.config_keys.get(setting, setting), part_of(config, self.config_path)
        return own if own in settings or setting not in settings else setting

    def config_value(self, config: Mapping[str, Any], setting: str) -> Any:
        """Return the value of a setting in config.json, or that of the config's class; None where there is none."""
        settings = part_of(config, self.config_path)
        return settings.get(self.config_key(config, setting), self.config_defaults.get(setting))

    def is_of_other_module(self, name: str) -> bool:
        """Return True for a tensor of a module beside the language model, by its name in the model."""
        return name.startswith(tuple(f"{each}." for each in self.other_modules))

    def module_name(self, key: str) -> str:
        """Return the model's name for a file's key: hub files of some families omit the prefix of the base model."""
        renamed = _translated(key, self.renamed)
        if renamed is not None:
            return renamed
        if self.stored_head is not None and key.startswith(f"{self.stored_head}."):
            return self.head + key.removeprefix(self.stored_head)
        if key.startswith((f"{self.base}.", f"{self.head}.")):
            return key
        return f"{self.base}.{key}"

    def pieces_of(self, key: str) -> dict[str, Pieces]:
        """Return the tensors that one of a file is a part of, by their names, each with the keys of all its parts."""
        pattern, numbers = pattern_of(key), numbers_of(key)
        return {
            name.format(*numbers): replace(each, stored=tuple(part.format(*numbers) for part in each.stored))
            for name, each in self.pieced.items()
            if pattern in each.stored
        }

    def stored_name(self, name: str) -> str:
        """Return the key a file has for a name of the model."""
        renamed = _translated(name, {module: key for key, module in self.renamed.items()})
        if renamed is not None:
            return renamed
        if self.stored_head is not None and name.startswith(f"{self.head}."):
            return self.stored_head + name.removeprefix(self.head)
        return name


def _translated(name: str, patterns: Mapping[str, str]) -> str | None:
    """Return another name for one that has a pattern, its numbers put in order where that has `{}`; else None."""
    pattern = patterns.get(pattern_of(name))
    return None if pattern is None else pattern.format(*numbers_of(name))
