"""Protocol of an engine: it goes on from a text, or answers a conversation, piece by piece."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

Message = Mapping[str, str]
"""`role` ('user' or 'assistant') and `content`."""


class Engine(Protocol):
    """Open model. Both methods take the likeliest tokens, and yield text as it is there."""

    context: int
    """Most tokens of a conversation with its answer."""

    def length(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the engine reads before its answer."""

    def answer(self, messages: Sequence[Message], most_tokens: int) -> Iterator[str]:
        """Yield the answer to a conversation; without a chat template the last message's text goes on."""

    def go_on(self, text: str, most_tokens: int) -> Iterator[str]:
        """Yield what follows a text."""
