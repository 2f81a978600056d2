"""Choices about conversations as calibration, evaluation and training text."""

from typing import Literal, TypeAlias

Shape: TypeAlias = Literal["text", "chat"]
"""What a model writes itself: running text, or conversations in its own chat template."""
Answers: TypeAlias = Literal["dataset", "self"]
"""Whose answers a set of conversations is used with: its own, or those that the model writes."""
CountedTokens: TypeAlias = Literal["all", "assistant"]
"""Which tokens of conversations are measured or trained: all of them, or the assistant's alone."""
