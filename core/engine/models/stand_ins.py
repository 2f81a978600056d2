"""Stand-ins for decoder blocks, with which the backbone's own code runs without them."""

from typing import Any, TypeAlias

from torch import Tensor, nn

BlockArguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Block's positional and keyword arguments except the hidden states."""
Answer: TypeAlias = Tensor | tuple[Tensor | None, ...]


class _StandIn(nn.Module):
    """Stand-in for a block; its other attributes are the block's, because Gemma's backbone reads `attention_type`.

    It returns what the block returns: hidden states, or a tuple of `outputs` items that begins with them.
    """

    def __init__(self, block: nn.Module, outputs: int) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not registered as a submodule
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
    """Stand-in for the first block when only the head runs: it returns hidden states computed elsewhere."""

    def __init__(self, block: nn.Module, outputs: int, hidden: Tensor) -> None:
        super().__init__(block, outputs)
        self.hidden = hidden

    def forward(self, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Answer:
        return self.answer(self.hidden.to(hidden_states.dtype))
