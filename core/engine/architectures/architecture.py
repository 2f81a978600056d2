"""Architectures: all facts of a model that the engine needs, for language models and for image classifiers.

`declared` has those that are known; `core.engine.models.tracing` has the others from the model itself.

A language model's architecture names the module list of decoder blocks, and the linear layers of a block that read the
same input tensor: those layers share one statistic and one factorisation. Everything else (rotary embeddings, masks,
norms, soft caps) is the model's own code, which runs unchanged.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from core.engine.architectures.config import part_of
from core.engine.checkpoints.key_patterns import numbers_of, pattern_of
from core.engine.checkpoints.pieces import Pieces

COUNT_KEY: Final = "num_hidden_layers"
HEADS_KEY: Final = "num_attention_heads"
KV_HEADS_KEY: Final = "num_key_value_heads"
HEAD_DIM_KEY: Final = "head_dim"
VOCABULARY_KEY: Final = "vocab_size"
"""Common names of settings. An architecture's config may use other names."""
OWN_WIDTH_KEY: Final = "channels"
"""Key of a layer's number of channels, in architectures whose config has no setting for it."""
CHANNELS_KIND: Final = "channels"
"""Name of the kind of unit for one channel of an FFN or of an expert."""
EXPERTS_KIND: Final = "experts"
"""Name of the kind of unit for a whole expert."""
REFERENCE_TYPE = "secateur_reference"
"""`model_type` of the small networks this project defines itself (`core.engine.models.reference_networks`)."""
NetworkName = Literal["mlp", "lenet-300-100", "lenet-5", "digits-1989", "vgg"]


@dataclass(frozen=True)
class UnitAxis:
    """Linear layer, norm or parameter that shrinks with a unit.

    `side` is the dimension that shrinks: the output features, with their bias, or the input features. `runs` names the
    contiguous runs of these features, with the names of the kind of unit. `name:3` has three times as many features per
    unit, side by side.
    """

    module: str
    side: Literal["out", "in"]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class ExpertMatrix:
    """Parameter that stacks one matrix of every expert: [experts, outputs, inputs].

    `name` and its `bias`, [experts, outputs], are named within the experts' module. `parts` are the patterns of the
    keys by which files store one expert's matrix, in order, each with an equal part of the outputs: `{}` stands for the
    layer, then for the expert. `parts` is empty where files store the stacked parameter.
    """

    name: str
    bias: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Routing:
    """Choice of experts by a router whose whole experts can be removed.

    `count` is the config's setting for the number of experts. `rows` are the tensors of a block that have an entry for
    each expert along their first dimension, the router's tensors among them. Where experts lie in `groups` of equal
    size, side by side, a token goes to experts of `top_k_groups` groups. With `normalised` the gates of a token have
    the same sum whatever other experts there are.
    """

    count: str
    rows: tuple[str, ...]
    normalised: bool
    groups: int = 1
    top_k_groups: int = 1

    def refusal(self, left: int, top_k: int) -> str | None:
        """Return the reason why a router cannot choose among the experts that are left; None where it can."""
        if left < top_k:
            return f"each token goes to {top_k}"
        if self.groups == 1:
            return None
        if left % self.groups:
            return f"they lie in {self.groups} groups, of as many each"
        if left // self.groups < 2:
            return f"each of their {self.groups} groups is ranked by its best two"
        if self.top_k_groups * left // self.groups < top_k:
            return f"each token goes to {top_k}, of {self.top_k_groups} of their {self.groups} groups"
        return None


@dataclass(frozen=True)
class LinearNetwork:
    """Network of linear layers whose width follows the setting of the experts: as wide as `sets` experts together.

    A shared expert is such a network, or the FFN of blocks without experts. The last of its `axes` is the axis of the
    layer that reads its channels.
    """

    axes: tuple[UnitAxis, ...]
    sets: int


@dataclass(frozen=True)
class ExpertChannels:
    """Channels of experts: every expert of a block keeps the same number, each its own channels.

    `stacks` are the axes of the experts' stacks, for one expert; the last is the axis of the stack that reads the
    channels. The `linear` network beside the experts loses the same number of channels from each of its sets.
    """

    stacks: tuple[UnitAxis, ...]
    linear: LinearNetwork | None = None

    @property
    def axes(self) -> tuple[UnitAxis, ...]:
        """Return all axes, those of the stacks first."""
        return self.stacks if self.linear is None else (*self.stacks, *self.linear.axes)


@dataclass(frozen=True)
class Experts:
    """Experts of a block: a module that gets tokens and their chosen experts, and sums the experts' outputs.

    `module` is its name within the block. The stack `reading` multiplies the tokens, the stack `giving` the activations
    that follow. With `transposed`, stacks are [experts, inputs, outputs]. Each token goes to `top_k` experts. `routing`
    has the facts of the router; it is None where whole experts cannot be removed, and `kept_because` is the reason.
    `channels` are the channels that every expert can lose; None where they cannot be removed.
    """

    module: str
    reading: ExpertMatrix
    giving: ExpertMatrix
    transposed: bool
    top_k: int
    routing: Routing | None = None
    kept_because: str | None = None
    channels: ExpertChannels | None = None

    @property
    def matrices(self) -> tuple[ExpertMatrix, ExpertMatrix]:
        """Return the two stacks, in order of execution."""
        return (self.reading, self.giving)

    def without_routing(self, reason: str) -> "Experts":
        """Return the same experts, with a reason why no whole expert can be removed."""
        return replace(self, routing=None, kept_because=reason)

    def parameter(self, matrix: ExpertMatrix) -> str:
        """Return a stack's name within the block."""
        return f"{self.module}.{matrix.name}"


@dataclass(frozen=True)
class Sublayer:
    """Part of a decoder block that adds to the residual stream once, as attention and the FFN do.

    `groups` are its linear layers, grouped by the tensor they read, in order of execution; the last group is the output
    layer alone. `units` has the axes of each kind of unit in the sublayer; it is empty for a kind that cannot be
    removed. `norm` reads the residual stream that the output is added to. It is None where a norm or a factor lies
    between them; then only the layers' own outputs can be targets. `bias` is the config's setting that gives the linear
    layers, the output layer included, biases; None where no setting does.
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
        """Return a sublayer of two groups: the layers that read its input, and the output layer behind them."""
        return cls((inputs, (output,)), units, norm, bias)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the linear layers that read the sublayer's input."""
        return self.groups[0]

    @property
    def output(self) -> str:
        """Return the linear layer whose output is added to the residual stream."""
        return self.groups[-1][0]


@dataclass(frozen=True)
class Architecture:
    """Facts of one architecture.

    `blocks` is the module list of decoder layers.
    `base` is the attribute of the causal model that holds the backbone; hub files of some families leave it out of
    their keys. `sublayers` are in order of execution. `inputs` are all linear layers of a block, grouped by the tensor
    they read, in order of execution; by default they are the groups of the sublayers. `transposed` marks weights stored
    as [in, out] (GPT-2's Conv1D). `stored_head` is the head's name in files where it differs from the module's name.
    `embeddings` is the module of a declared backbone that embeds tokens.

    `width_key` is the config's name for the number of channels, `width_factor` the ratio of that setting to the
    number of channels, and `width_settings` the other settings that must be set with it. With `has_own_widths` no
    setting gives the width; the modelling file of the pruned model then builds the narrower layers. `config_keys` maps
    the common names of other settings to the config's own names where they differ. `config_defaults` are values, by
    common name, that the config's class has where config.json omits them. With `heads_divide_hidden` the config
    requires that the number of heads divides the hidden size. `tied_by_default` is True if the config's class ties the
    head to the embeddings by default. `lists_by_layer` are the config's lists with one entry for each layer.

    `block_kinds` are the distinct blocks, each as the sorted names of its parameters within the block; empty where all
    blocks have the same parameters. A layer has the linear layers of `inputs` whose weights it has. `arguments` says if
    a block's arguments depend on the length of the sequences only, or on the tokens too. `block_outputs` is the length
    of the tuple that a block returns; 0 where it returns the hidden states alone. `renamed` maps keys of files to names
    of the model where they differ; `{}` stands for a number of a module list. `refused` gives the reason why the
    architecture does not support an offer: `weights`, `channels`, `heads`, `layers`, `resume`, `uniform` or `per_layer`
    (equal or different layers), or anything that concerns its `experts`. `required` are outputs of sublayers: a model
    runs only if some block still has one of them. `pieced` describes tensors that files store in pieces, by a pattern
    of the tensor's name in the model; a pruned model stores such a tensor whole. `left_alone` are linear layers of
    blocks that are not pruned, each with the reason. `experts` describes the experts of its blocks, where some blocks
    have any. `discovered_by` are the versions of the discovery and of transformers; None for a declared architecture.

    `config_path` are the keys that lead to the language model's settings in config.json, where config.json describes
    more than the language model. All settings named here are in that part. `other_modules` are modules that do not run
    on tokens alone, such as image towers and the layers that project their outputs; they are saved unchanged.

    `vocabulary` are the tensors with one entry for each token, embeddings and head first among them: the dimension of
    these entries, by the pattern of the tensor's name in the model. The files need not have all of them.
    `vocabulary_settings` are the config's settings that count such entries. Both are empty where the tensors are not
    known; `refused` then may give the reason as `vocabulary`.
    """

    model_type: str
    architecture: str
    title: str
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
    embeddings: str = "embed_tokens"
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
    vocabulary: Mapping[str, int] = field(default_factory=dict, hash=False)
    vocabulary_settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Group the linear layers by sublayer where `inputs` is not given; give declared heads their vocabulary."""
        if not self.inputs:
            object.__setattr__(self, "inputs", tuple(group for each in self.sublayers for group in each.groups))
        if self.discovered_by is None and not self.vocabulary:
            embeddings = f"{self.base}.{self.embeddings}.weight"
            tables = {embeddings: 0, f"{self.head}.weight": 0, f"{self.head}.bias": 0}
            object.__setattr__(self, "vocabulary", tables)
            object.__setattr__(self, "vocabulary_settings", (VOCABULARY_KEY,))

    @property
    def added_to_stream(self) -> dict[str, str]:
        """Return the linear layers whose outputs are added to the residual stream, each with its sublayer's norm."""
        return {each.output: each.norm for each in self.sublayers if each.norm is not None}

    def sublayer_of(self, kind: str) -> Sublayer | None:
        """Return the sublayer that has units of a kind; None where there is none."""
        return next((each for each in self.sublayers if kind in each.units), None)

    def axes(self, kind: str) -> tuple[UnitAxis, ...]:
        """Return the axes of a kind of unit; empty where it cannot be removed."""
        if kind == EXPERTS_KIND:
            routing = None if self.experts is None else self.experts.routing
            return () if routing is None else tuple(UnitAxis(name, "out", ("expert",)) for name in routing.rows)
        if kind == CHANNELS_KIND and self.experts is not None:
            channels = None if kind in self.refused else self.experts.channels
            return () if channels is None else channels.axes
        sublayer = self.sublayer_of(kind)
        return () if sublayer is None or kind in self.refused else sublayer.units[kind]

    def reading_weight(self, kind: str) -> str:
        """Return the name within the block of the weight that reads the outputs of a kind's units."""
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
        """Return the prunable linear layers of a block that has these parameters, by their names within the block.

        In an architecture with one kind of block, all linear layers are returned, without a check.
        """
        if not self.block_kinds:
            return self.linears
        return tuple(name for name in self.linears if f"{name}.weight" in parameters)

    def config_key(self, config: Mapping[str, Any], setting: str) -> str:
        """Return config.json's name for a setting: the architecture's own name, else the common one."""
        own, settings = self.config_keys.get(setting, setting), part_of(config, self.config_path)
        return own if own in settings or setting not in settings else setting

    def config_value(self, config: Mapping[str, Any], setting: str) -> Any:
        """Return a setting's value in config.json, else the default of the config's class, else None."""
        settings = part_of(config, self.config_path)
        return settings.get(self.config_key(config, setting), self.config_defaults.get(setting))

    def vocabulary_dimension(self, name: str) -> int | None:
        """Return the dimension of a tensor that has an entry for each token, by its name in the model; None without."""
        return self.vocabulary.get(pattern_of(name))

    def is_of_other_module(self, name: str) -> bool:
        """Return True for a tensor of a module outside the language model, by its name in the model."""
        return name.startswith(tuple(f"{each}." for each in self.other_modules))

    def module_name(self, key: str) -> str:
        """Return the model's name for a key of a file. Hub files of some families omit the prefix of the base model."""
        renamed = _translated(key, self.renamed)
        if renamed is not None:
            return renamed
        if self.stored_head is not None and key.startswith(f"{self.stored_head}."):
            return self.head + key.removeprefix(self.stored_head)
        if key.startswith((f"{self.base}.", f"{self.head}.")):
            return key
        return f"{self.base}.{key}"

    def pieces_of(self, key: str) -> dict[str, Pieces]:
        """Return the tensors that a stored tensor is a piece of, by name, each with the keys of all its pieces."""
        pattern, numbers = pattern_of(key), numbers_of(key)
        return {
            name.format(*numbers): replace(each, stored=tuple(part.format(*numbers) for part in each.stored))
            for name, each in self.pieced.items()
            if pattern in each.stored
        }

    def stored_name(self, name: str) -> str:
        """Return the key of a file for a name of the model."""
        renamed = _translated(name, {module: key for key, module in self.renamed.items()})
        if renamed is not None:
            return renamed
        if self.stored_head is not None and name.startswith(f"{self.head}."):
            return self.stored_head + name.removeprefix(self.head)
        return name


def _translated(name: str, patterns: Mapping[str, str]) -> str | None:
    """Return the name that the patterns give, with the numbers put in place of `{}`; None where no pattern matches."""
    pattern = patterns.get(pattern_of(name))
    return None if pattern is None else pattern.format(*numbers_of(name))


@dataclass(frozen=True)
class ClassifierArchitecture:
    """Facts of one architecture of image classifiers.

    `head` is the module that computes the logits.
    `renames` are pairs (pattern, replacement) from a file's keys to the model's names, in order. `prefix` is put before
    keys that lack it (hub files of timm models do).
    """

    model_type: str
    architecture: str
    title: str
    head: str = "classifier"
    renames: tuple[tuple[str, str], ...] = ()
    prefix: str = ""

    def module_name(self, key: str) -> str:
        """Return the module's name in the model for a key of its file."""
        if self.prefix and not key.startswith(self.prefix):
            key = self.prefix + key
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key
