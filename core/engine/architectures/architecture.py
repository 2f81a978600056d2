"""Architecture of a language model: all that the engine must know of one, declared once, in a module of `overrides`.

It names where its decoder blocks live and which linear layers of a block read the same input tensor: those
share one statistic and one factorisation. Everything else (rotary embeddings, masks, norms, soft caps) is the
model's own code, run as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class UnitAxis:
    """A linear layer or norm that is cut along with a unit.

    `side`: its output features with their bias, or its input features. `runs` says what these are, run after run, by
    the names that the kind of unit gives them.
    """

    module: str
    side: Literal["out", "in"]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Sublayer:
    """The attention or the FFN of a decoder block.

    `inputs` are the linear layers that read the tensor it begins with, `output` is the one that reads what its units
    give, as heads or channels. `units` has the axes of each kind of unit that can be removed from it. `norm` reads the
    residual stream that the output is added to; None where anything lies between, as a norm or a factor (then only
    layers' own outputs are targets). `bias` is the config's setting that gives its linear layers biases, the output
    among them; None where no setting does.
    """

    inputs: tuple[str, ...]
    output: str
    units: Mapping[str, tuple[UnitAxis, ...]] = field(default_factory=dict, hash=False)
    norm: str | None = None
    bias: str | None = None

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Return its linear layers, grouped by the tensor they read, in order of execution."""
        return (self.inputs, (self.output,))


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    `order` is its place in lists of architectures, the smallest first. `blocks` is the module list of decoder layers,
    `base` the attribute of the causal model that holds the backbone (hub files of some families leave it out of their
    keys). `transposed` marks weights stored as [in, out] (GPT-2's Conv1D). `stored_head` is the head's name in files
    where it is not that of the module. Where the head size follows from the hidden size, so that no head can go, the
    attention has no units. `width_key` is the config's name for the number of channels, `heads_divide_hidden` whether
    the config insists on it. `tied_by_default` says whether the config's class ties the head to the embeddings unless
    told otherwise; `lists_by_layer` are the config's lists with an entry for each layer.
    """

    model_type: str
    architecture: str
    title: str
    order: int
    base: str
    blocks: str
    head: str
    attention: Sublayer
    ffn: Sublayer
    width_key: str = "intermediate_size"
    heads_divide_hidden: bool = False
    tied_by_default: bool = False
    transposed: bool = False
    stored_head: str | None = None
    lists_by_layer: tuple[str, ...] = ("layer_types",)

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        return (self.attention, self.ffn)

    @property
    def inputs(self) -> tuple[tuple[str, ...], ...]:
        """Return the linear layers of a block grouped by the tensor they read, in order of execution."""
        return tuple(group for sublayer in self.sublayers for group in sublayer.groups)

    @property
    def added_to_stream(self) -> dict[str, str]:
        """Return the linear layers that add to the residual stream, each with the norm that reads it before."""
        return {each.output: each.norm for each in self.sublayers if each.norm is not None}

    def sublayer_of(self, kind: str) -> Sublayer | None:
        """Return the sublayer from which units of a kind can be removed; None where there is none."""
        return next((each for each in self.sublayers if kind in each.units), None)

    def axes(self, kind: str) -> tuple[UnitAxis, ...]:
        """Return the axes of a kind of unit; none where it cannot be removed."""
        sublayer = self.sublayer_of(kind)
        return () if sublayer is None else sublayer.units[kind]

    @property
    def linears(self) -> tuple[str, ...]:
        """Return all prunable linear layers of a block, relative to the block."""
        return tuple(name for group in self.inputs for name in group)

    def module_name(self, key: str) -> str:
        """Return the model's name for a file's key: hub files of some families omit the prefix of the base model."""
        if self.stored_head is not None and key.startswith(f"{self.stored_head}."):
            return self.head + key.removeprefix(self.stored_head)
        if key.startswith((f"{self.base}.", f"{self.head}.")):
            return key
        return f"{self.base}.{key}"

    def stored_name(self, name: str) -> str:
        """Return the key a file has for a name of the model."""
        if self.stored_head is not None and name.startswith(f"{self.head}."):
            return self.stored_head + name.removeprefix(self.head)
        return name
