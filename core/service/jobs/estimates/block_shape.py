"""Shape of a decoder block as a device's memory meets it: groups of linear layers, and what tokens hold before each."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.layer_shape import LinearShape


@dataclass(frozen=True)
class GroupShape:
    """Linear layers that read one tensor of `inputs` features, of so many weights each.

    `waiting` are the values of each token that a forward holds while it waits before them, beside the block's input;
    `arriving` the most on the way there from the group before. `is_added`: what they give goes to the residual stream.
    """

    inputs: int
    sizes: tuple[int, ...]
    waiting: int
    arriving: int
    is_added: bool

    @property
    def weights(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class BlockShape:
    """Largest decoder block of a model: its weights, and its groups in the order in which tokens come to them."""

    weights: int
    hidden_size: int
    groups: tuple[GroupShape, ...]

    @classmethod
    def of(cls, description: ModelDescription) -> "BlockShape":
        blocks: dict[int, list[LinearShape]] = defaultdict(list)
        for linear in description.linears:
            blocks[linear.layer].append(linear)
        largest = max(blocks.values(), key=lambda block: sum(linear.numel for linear in block))
        return cls(
            weights=sum(linear.numel for linear in largest),
            hidden_size=description.hidden_size,
            groups=tuple(_groups(description, largest)),
        )

    def adding_alone(self) -> "BlockShape":
        """Return the block with those groups alone whose outputs are added to the residual stream."""
        return replace(self, groups=tuple(group for group in self.groups if group.is_added))

    @property
    def passing(self) -> int:
        """Values of each token at the most while a micro-batch goes through the block, its input among them."""
        return self.hidden_size + max(each.arriving for each in self.groups)


def _groups(description: ModelDescription, linears: Sequence[LinearShape]) -> Iterator[GroupShape]:
    """Yield the groups of a block, sublayer by sublayer.

    A sublayer holds the residual stream, if that is not the block's input, and its normed input. Before attention's
    output there are queries, keys and values beside what it reads; on the way rotated copies of them. Before that of an
    FFN there is its input alone; on the way two more as wide.
    """
    family, hidden = description.known_as, description.hidden_size
    by_name = {linear.name.partition(f"{family.blocks}.{linear.layer}.")[2]: linear for linear in linears}
    for place, sublayer in enumerate(family.sublayers):
        residual = hidden if place == 0 else 2 * hidden
        before: list[LinearShape] = []
        for names in sublayer.groups:
            group = [by_name[name] for name in names if name in by_name]
            if not group:
                continue
            inputs, given = group[0].in_features, sum(each.out_features for each in before)
            is_attention = "channels" not in sublayer.units
            waiting, arriving = residual, residual + 2 * hidden
            if before and is_attention:
                waiting, arriving = residual + given + inputs, residual + given + 3 * inputs
            elif before:
                waiting, arriving = residual + inputs, residual + 3 * inputs
            sizes = tuple(each.numel // (each.experts or 1) for each in group)
            yield GroupShape(inputs, sizes, waiting, arriving, names[-1] == sublayer.output)
            before = group
