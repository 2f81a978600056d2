"""Values that a training's forward keeps for its backward pass."""

from dataclasses import dataclass

from core.engine.architectures.block_shape import BlockShape, GroupShape
from core.methods.cost import FLOAT
from core.service.jobs.estimates.ledger import Ledger


@dataclass(frozen=True)
class KeptValues:
    """Values that a forward keeps for its backward pass, of so many `tokens`.

    `stream` are the bytes of a value of the residual stream, `inner` of one between linear layers: where they are
    fewer, by autocast, each layer that reads the stream has a copy of its own. A norm keeps what it reads in float32
    and, where it is trained, what it makes of that (`trains_norms`). With adapters beside frozen weights each layer
    keeps what its adapter reads, and a byte of each value for those that were dropped (`has_adapters`).
    """

    tokens: int
    stream: int
    inner: int
    trains_norms: bool = False
    has_adapters: bool = False

    def of_group(self, hidden_size: int, group: GroupShape) -> int:
        """Return the bytes of a group's; those of the norm before a sublayer are the first group's."""
        values = self.inner * group.kept
        if self.has_adapters:
            values += (self.inner + 1) * group.inputs * len(group.sizes)
        if group.is_added:  # a frozen weight does not need its input
            values -= self.inner * min(group.inputs, group.kept - group.inputs) * self.has_adapters
            return self.tokens * values
        values += hidden_size * FLOAT * (1 + self.trains_norms)
        if not self.has_adapters:
            values += hidden_size * self.inner * (len(group.sizes) if self.inner < self.stream else 1)
        return self.tokens * values

    def of_block(self, block: BlockShape) -> int:
        """Return the bytes of a block's."""
        return sum(self.of_group(block.hidden_size, group) for group in block.groups)

    def way_back(self, ledger: Ledger, block: BlockShape, gradient_bytes: float) -> None:
        """Account for the backward pass of a block: group by group, gradients of weights take kept values' place."""
        left, done = self.of_block(block), 0.0
        for group in reversed(block.groups):
            done += gradient_bytes * group.weights
            ledger.reach(left + done + self.tokens * self.inner * (group.passing_back + block.hidden_size))
            left -= self.of_group(block.hidden_size, group)
