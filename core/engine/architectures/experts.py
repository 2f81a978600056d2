"""Experts of a mixture: the facts of an architecture's experts that the engine needs."""

from dataclasses import dataclass, replace

from core.engine.architectures.unit_axis import UnitAxis


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
