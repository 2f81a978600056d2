"""Numbers of tokens that files are compared and timed on."""

from typing import Final

PREDICTIONS: Final = 2048
WINDOW: Final = 256
"""Tokens of a sequence whose predictions are compared."""
PROMPT_TOKENS: Final = 128
DECODED_TOKENS: Final = 32
MOST_ROUNDS: Final = 7
