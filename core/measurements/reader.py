"""Reader of the measured tables in this release, and sentences about their losses; it loads no torch."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

from core.measurements.measurement import Measurement, Measurements

Table: TypeAlias = Literal["structured", "zeros", "vocabulary"]
_FOLDER: Final = Path(__file__).parent


def read_file(file: Path) -> list[Measurement]:
    """Return the measurements of a file; raises pydantic's ValidationError for any other file."""
    return Measurements.model_validate_json(file.read_bytes()).measurements


@cache
def measurements(table: Table) -> tuple[Measurement, ...]:
    """Return a table of this release: for methods that remove units, that zero weights, or tokens."""
    return tuple(read_file(_FOLDER / f"{table}.json"))


_WHOLES: Final[Mapping[Table, str]] = {
    "structured": "parameters that go",
    "zeros": "weights that become zero",
    "vocabulary": "parameters that go with tokens",
}


def measured_losses(method: str, table: Table, pattern: str) -> str:
    """Return a sentence about the perplexity that a method left of the sample model, by the amount that was removed.

    Of several texts the one that lost most counts, and of several settings of the method the one that lost least. Jobs
    with a training afterwards do not count. Raises LookupError if there is no measurement.
    """
    rows = [
        each
        for each in measurements(table)
        if (each.method, each.pattern) == (method, pattern) and each.recovery is None
    ]
    least: dict[float, float] = {}
    for row in rows:
        ratio = max(text.mean for text in row.perplexity.values())
        share = round(row.sparsity, 2)
        least[share] = min(ratio, least.get(share, ratio))
    if not rows:
        raise LookupError(f"there is no measurement of {method} with pattern {pattern} in {table}.json")
    (name,) = {row.model.name for row in rows}
    losses = ", ".join(f"{ratio:.3g} at {share:.0%}" for share, ratio in sorted(least.items()))
    return (
        f"Measured on {name}, without training: perplexity ÷ dense perplexity, by share of {_WHOLES[table]}: {losses}."
    )
