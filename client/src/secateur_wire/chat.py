"""Choices about conversations as calibration, evaluation and training text."""

from typing import Literal, TypeAlias

Shape: TypeAlias = Literal["text", "chat"]
"""Shape of the text that a model writes itself: running text, or conversations in its own chat template."""
Answers: TypeAlias = Literal["dataset", "self"]
"""Answers with which a set of conversations is used: its own, or those that the model writes."""
CountedTokens: TypeAlias = Literal["all", "assistant"]
"""Tokens of conversations that are measured or trained: all of them, or the assistant's alone."""
