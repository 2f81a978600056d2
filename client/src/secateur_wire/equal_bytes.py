"""Comparison of an artifact with the best dense file of no more bytes."""

import json
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from secateur_wire.base import JsonObject, Number, OneOf, Record

EqualBytesOutcome: TypeAlias = Literal["better", "worse", "within error"]


class EqualBytes(Record):
    """Artifact and the best dense file of no more bytes, on one evaluation set.

    `file` is the smallest of the artifact's measured files, of `bytes`. `dense` is the best of the dense model's
    measured files that take no more, of `dense_bytes`, and `basis` says where it was measured. `difference` is the
    artifact's bits per byte minus the dense file's: below 0, the artifact is better. `stderr` is its standard error
    over the `windows` of text that both were measured on, each compared with itself. `outcome` is 'within error' where
    the difference is no larger than that. Where it is None, `reason` says what is missing, and `measure` is the body of
    a job that measures it, if there is one.
    """

    file: str | None = None
    bytes: int | None = None
    dense: str | None = None
    dense_bytes: int | None = None
    basis: str | None = None
    difference: Number | None = None
    stderr: Number | None = None
    windows: int | None = None
    outcome: Annotated[str, OneOf(EqualBytesOutcome)] | None = None
    reason: str | None = None
    measure: JsonObject | None = None

    @property
    def dense_model(self) -> str:
        """Return the name of the dense file in a sentence."""
        return f"the {(self.dense or 'dense').replace('dense', 'dense model', 1)}"

    @property
    def words(self) -> str:
        """Return the comparison in words."""
        if self.outcome is None or self.difference is None or self.dense_bytes is None:
            missing = f"unknown: {self.reason}"
            if self.measure is None:
                return missing
            output = json.dumps(self.measure.get("output"))
            return f"{missing}; a job of method {self.measure.get('method')} with output {output} measures one"
        error = f"± {self.stderr or 0.0:.1g}"
        against = f"{self.dense_model} ({self.dense_bytes:,} bytes)"
        if self.outcome == "within error":
            return f"no different from {against} within the error ({self.difference:+.2g} {error} bits per byte)"
        return f"{self.outcome} than {against} by {abs(self.difference):.2g} {error} bits per byte"


def in_words(compared: Mapping[str, EqualBytes]) -> str:
    """Return the comparisons on all evaluation sets in words."""
    return "; ".join(f"on {name} {each.words}" for name, each in compared.items())
