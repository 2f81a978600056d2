"""Coupled channels as data: which slices of which tensors go together when a channel is removed."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Side = Literal["out", "in", "both", "norm", "scale"]
Kind = Literal["filters", "heads", "channels"]


@dataclass(frozen=True)
class Slice:
    """What removing a unit takes of one tensor: along `dim`, `indices_UK[u]` of unit u."""

    tensor: str
    dim: int
    indices_UK: Tensor


@dataclass(frozen=True)
class Member:
    """One layer that has a group's channels: it writes them (`out`), reads them (`in`), does both channel by channel (a
    depthwise convolution), normalises them (`norm`), or is a parameter they are scaled by (`scale`).

    `channels_UK[u]` are the channels of unit u as the layer numbers them.
    """

    name: str
    side: Side
    channels_UK: Tensor
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together, in `units` that can be removed one by one.

    A unit is a filter, an attention head, or a channel between two linear layers; of a grouped convolution it is one
    channel of each of its groups, so that they stay alike. `leaders` are the layers that write the channels nearest to
    the image: of a residual stage the shortcut's (Li 2016 lets it decide), of attention the three projections.
    `is_exact`: a unit's removal is the same as silence for whoever reads it, which a layer-norm, whose mean it is part
    of, rules out. `operations` are those the channels pass through between layers.
    """

    name: str
    kind: Kind
    units: int
    members: tuple[Member, ...]
    leaders: tuple[Member, ...]
    is_exact: bool
    operations: tuple[str, ...] = ()

    @property
    def writers(self) -> tuple[Member, ...]:
        """The layers whose outputs get fewer."""
        return tuple(member for member in self.members if member.side in ("out", "both"))

    @property
    def readers(self) -> tuple[Member, ...]:
        """The layers whose inputs get fewer."""
        return tuple(member for member in self.members if member.side == "in")

    @property
    def slices(self) -> tuple[Slice, ...]:
        return tuple(each for member in self.members for each in member.slices)
