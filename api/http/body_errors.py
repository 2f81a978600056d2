"""Errors of a body that describes a job, whether it is submitted, tried or planned."""

from core.errors import (
    DoesNotFit,
    IndivisibleWidth,
    InvalidParameters,
    InvalidPattern,
    InvalidSparsity,
    TooFewImages,
    TooLittleText,
    UnknownDataset,
    UnknownModel,
)

BODY_ERRORS = (
    UnknownModel,
    UnknownDataset,
    InvalidSparsity,
    InvalidPattern,
    InvalidParameters,
    IndivisibleWidth,
    TooFewImages,
    TooLittleText,
    DoesNotFit,
)
"""Errors of what a job names and asks for: its model, texts, sparsity and parameters."""
