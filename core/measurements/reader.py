"""Reader of the measured tables in this release; it loads no torch."""

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
