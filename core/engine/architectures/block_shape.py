"""Shape of a decoder block, for estimates of device memory: groups of linear layers and the activations before each."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.layer_shape import LinearShape


@dataclass(frozen=True)
class GroupShape:
    """Linear layers that read one tensor of `inputs` features, with the number of weights of each layer.

    All activations are counted in values per token. `waiting` are held while the group's layers run, beside the block's
    input. `arriving` is the peak between the group before and this one. `kept` are read again by a backward pass: the
    outputs of a group that reads the residual stream, or the input of a group whose output is added to it (`is_added`).
    """

    inputs: int
    sizes: tuple[int, ...]
    waiting: int
    arriving: int
    kept: int
    is_added: bool
    cached: int

    @property
    def weights(self) -> int:
        return sum(self.sizes)

    @property
    def passing_back(self) -> int:
        """Peak of the gradients' values per token on the way back through the group."""
        return self.inputs if self.is_added else 2 * self.kept


@dataclass(frozen=True)
class BlockShape:
    """Largest decoder block of a model: its weights, and its groups in order of execution."""

    weights: int
    hidden_size: int
    groups: tuple[GroupShape, ...]

    @classmethod
    def of(cls, description: ModelDescription) -> "BlockShape":
        """Return the shape of the largest block."""
        blocks: dict[int, list[LinearShape]] = defaultdict(list)
        for linear in description.linears:
            blocks[linear.layer].append(linear)
        largest = max(blocks.values(), key=lambda block: sum(linear.numel for linear in block))
        return cls(
            weights=sum(linear.numel for linear in largest),
            hidden_size=description.hidden_size,
            groups=tuple(_groups(description, largest)),
        )

    @property
    def largest(self) -> int:
        """Number of weights of its largest linear layer."""
        return max(size for group in self.groups for size in group.sizes)

    @property
    def passing(self) -> int:
        """Peak of the values per token while a micro-batch goes through the block, the block's input included."""
        return self.hidden_size + max(each.arriving for each in self.groups)

    @property
    def cached(self) -> int:
        """Values per token in a cache of keys and values."""
        return sum(each.cached for each in self.groups)


def _groups(description: ModelDescription, linears: Sequence[LinearShape]) -> Iterator[GroupShape]:
    """Yield the groups of a block, sublayer by sublayer.

    A sublayer holds its normed input, and the residual stream if that differs from the block's input. Before the output
    layer of attention there are the queries, keys and values beside that layer's input; on the way to it there are the
    rotated parts of queries and keys. Before the output layer of an FFN there is only that layer's input; on the way to
    it there are two more tensors as wide.
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
                rotated = max(3 * inputs, inputs + 3 * (given - inputs) // 2)
                waiting, arriving = residual + given + inputs, residual + given + rotated
            elif before:
                waiting, arriving = residual + inputs, residual + 3 * inputs
            sizes = tuple(each.numel // (each.experts or 1) for each in group)
            kept = sum(each.out_features for each in group)
            if before:  # the activation of a gated FFN
                kept = inputs if is_attention or len(before) == 1 else 2 * inputs
            cached = given - inputs if before and is_attention else 0
            yield GroupShape(inputs, sizes, waiting, arriving, kept, names[-1] == sublayer.output, max(cached, 0))
            before = group
