"""Numbers of tokens on which files are compared and timed."""

from typing import Final

PREDICTIONS: Final = 2048
WINDOW: Final = 256
"""Tokens of a window whose predictions are compared."""
MEASURED_TOKENS: Final = 8_192
"""Most tokens of an evaluation set on which the loss of a file is measured."""
PROMPT_TOKENS: Final = 128
DECODED_TOKENS: Final = 32
MOST_ROUNDS: Final = 7
PROBES: Final = 520
"""Lines on which a tokenizer's pieces, and later its ids, are compared."""
