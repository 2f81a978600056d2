"""Experts of a mixture: the facts of them that the engine needs, as an architecture has them."""

from dataclasses import dataclass, replace

from core.engine.architectures.unit_axis import UnitAxis


@dataclass(frozen=True)
class ExpertMatrix:
    """A parameter that stacks one matrix of every expert: [experts, outputs, inputs].

    `name` and its `bias`, [experts, outputs], are named within the experts' module. `parts` are the patterns of the
    keys by which files hold a single expert's matrix, in parts of as many outputs each, in order: `{}` stands for the
    layer, then for the expert. There are none where files hold the parameter as it is.
    """

    name: str
    bias: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Routing:
    """The choice of experts, as far as whole experts can be removed from it.

    `count` is the config's setting that says how many there are. `rows` are the tensors of a block that have an entry
    for each expert, along their first dimension: its own and those of the router. Where experts lie in `groups`, each
    of as many side by side, a token goes to experts of `top_k_groups` of these. `normalised`: the gates of a token sum
    to the same whatever experts there are beside its own.
    """

    count: str
    rows: tuple[str, ...]
    normalised: bool
    groups: int = 1
    top_k_groups: int = 1

    def refusal(self, left: int, top_k: int) -> str | None:
        """Return why a router cannot choose among so many experts that are left; None where it can."""
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
    """A network of linear layers whose width follows the setting of the experts: as wide as `sets` of them together.

    So a shared expert is, or the FFN of blocks that have no experts. The last of its `axes` is that of the layer that
    reads its channels.
    """

    axes: tuple[UnitAxis, ...]
    sets: int


@dataclass(frozen=True)
class ExpertChannels:
    """Channels of experts: every expert of a block keeps as many, each its own.

    `stacks` are the axes of the experts' stacks, those of one expert; the last is that of the stack that reads its
    channels. What is `linear` beside the experts loses as many of each set of so many channels.
    """

    stacks: tuple[UnitAxis, ...]
    linear: LinearNetwork | None = None

    @property
    def axes(self) -> tuple[UnitAxis, ...]:
        """Return all axes, those of the stacks first."""
        return self.stacks if self.linear is None else (*self.stacks, *self.linear.axes)


@dataclass(frozen=True)
class Experts:
    """The experts of a block: a module that is given tokens with the experts each goes to, and adds up what these give.

    `module` is its name within the block. `reading` multiplies the tokens, `giving` what becomes of its outputs.
    `transposed`: stacks are [experts, inputs, outputs]. Each token goes to `top_k` of them. `routing`
    is what is known of their choice; None where whole experts cannot be removed, `kept_because` then says why.
    `channels` are those that every one can lose; None where none can.
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
        """Return the two stacks, in the order of their use."""
        return (self.reading, self.giving)

    def without_routing(self, reason: str) -> "Experts":
        """Return the same experts, of which no whole one can be removed, for a reason."""
        return replace(self, routing=None, kept_because=reason)

    def parameter(self, matrix: ExpertMatrix) -> str:
        """Return a stack's name within the block."""
        return f"{self.module}.{matrix.name}"
