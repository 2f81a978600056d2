"""Refusal of a tokenizer that cannot be cut exactly."""

from typing import Final

from secateur_wire.errors import InvalidRequest

PARAM: Final = "vocabulary"
"""Part of a request that asks for fewer tokens."""


def refusal(reason: str) -> InvalidRequest:
    """Return the error for a tokenizer that cannot be cut; the reason completes `the model's tokenizer …`."""
    return InvalidRequest(
        f"{PARAM}: the model's tokenizer {reason}; a vocabulary is cut only where texts are certain to be tokenized as "
        "before: keep the whole vocabulary, or choose a model with another tokenizer",
        param=PARAM,
    )
