"""Values that a training's forward keeps for its backward pass."""

from dataclasses import dataclass

from core.engine.architectures.block_shape import BlockShape, GroupShape
from core.methods.cost import FLOAT
from core.service.jobs.estimates.ledger import Ledger


@dataclass(frozen=True)
class KeptValues:
    """Values that a forward of `tokens` tokens keeps for its backward pass.

    `stream` is the number of bytes of a value in the residual stream, `inner` of a value between linear layers. If
    `inner` is smaller (autocast), each layer that reads the stream keeps its own cast of it. A norm keeps its input in
    float32, and its output too if it is trained (`trains_norms`). With adapters beside frozen weights (`has_adapters`)
    each layer keeps its adapter's input, and one byte a value for the mask of dropout.
    """

    tokens: int
    stream: int
    inner: int
    trains_norms: bool = False
    has_adapters: bool = False

    def of_group(self, hidden_size: int, group: GroupShape) -> int:
        """Return the bytes of a group's values. The norm before a sublayer counts with the first group."""
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
        """Return the bytes of a block's values."""
        return sum(self.of_group(block.hidden_size, group) for group in block.groups)

    def account_backward(self, ledger: Ledger, block: BlockShape, gradient_bytes: float) -> None:
        """Account for the backward pass of a block: group by group, gradients of weights replace kept values."""
        left, done = self.of_block(block), 0.0
        for group in reversed(block.groups):
            done += gradient_bytes * group.weights
            ledger.reach(left + done + self.tokens * self.inner * (group.passing_back + block.hidden_size))
            left -= self.of_group(block.hidden_size, group)
