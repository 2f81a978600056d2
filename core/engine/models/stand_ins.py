"""Stand-ins for decoder blocks, by which the backbone's own code runs without them."""

from typing import Any, TypeAlias

from torch import Tensor, nn

BlockArguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""A block's positional and keyword arguments other than the hidden states."""
Answer: TypeAlias = Tensor | tuple[Tensor | None, ...]


class _StandIn(nn.Module):
    """Stand-in for a block, whose other facts are the block's: Gemma's backbone reads `attention_type`.

    It answers as the block does: with hidden states, or with a tuple of so many `outputs` that begins with them.
    """

    def __init__(self, block: nn.Module, outputs: int) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a module of this one
        self.outputs = outputs

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["block"], name)

    def answer(self, hidden_states: Tensor) -> Answer:
        return (hidden_states, *[None] * (self.outputs - 1)) if self.outputs else hidden_states


class ArgumentRecorder(_StandIn):
    """Stand-in that records its arguments and returns the hidden states unchanged."""

    def __init__(self, block: nn.Module, outputs: int) -> None:
        super().__init__(block, outputs)
        self.seen: list[tuple[Tensor, BlockArguments]] = []

    def forward(self, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Answer:
        self.seen.append((hidden_states, (arguments, keywords)))
        return self.answer(hidden_states)


class Replacement(_StandIn):
    """Stand-in for the first block when only the head is needed: returns hidden states computed elsewhere."""

    def __init__(self, block: nn.Module, outputs: int, hidden: Tensor) -> None:
        super().__init__(block, outputs)
        self.hidden = hidden

    def forward(self, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Answer:
        return self.answer(self.hidden.to(hidden_states.dtype))
