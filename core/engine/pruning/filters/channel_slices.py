"""Coupled channels as data: the slices of tensors that are removed together with a channel."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Side = Literal["out", "in", "both", "norm", "scale"]
Kind = Literal["filters", "heads", "channels"]


@dataclass(frozen=True)
class Slice:
    """Part of one tensor that belongs to the units: along `dim`, `indices_UK[u]` belongs to unit u."""

    tensor: str
    dim: int
    indices_UK: Tensor


@dataclass(frozen=True)
class Member:
    """Layer that has a group's channels.

    It writes them (`out`), reads them (`in`), does both channel by channel (a depthwise convolution), normalises them
    (`norm`), or is a parameter that scales them (`scale`). `channels_UK[u]` are the channels of unit u in the layer's
    numbering.
    """

    name: str
    side: Side
    channels_UK: Tensor
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together, in `units` that can be removed one by one.

    A unit is a filter, an attention head, or a channel between two linear layers; in a grouped convolution it is one
    channel of each of its groups, so that they stay alike. `leaders` are the writing layers nearest to the image: in a
    residual stage the shortcut (Li 2016 lets it decide), in attention the three projections. `is_exact`: removing a
    unit has the same effect on its readers as zeroing it. A layer-norm rules that out, because the unit is part of its
    mean. `operations` are those that the channels pass through between layers.
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
        """Layers that lose outputs."""
        return tuple(member for member in self.members if member.side in ("out", "both"))

    @property
    def readers(self) -> tuple[Member, ...]:
        """Layers that lose inputs."""
        return tuple(member for member in self.members if member.side == "in")

    @property
    def slices(self) -> tuple[Slice, ...]:
        return tuple(each for member in self.members for each in member.slices)
