"""Reader of the measured tables that come with this release; loads no torch."""

from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

from core.measurements.measurement import Measurement, Measurements

Table: TypeAlias = Literal["structured", "zeros"]
_FOLDER: Final = Path(__file__).parent


def read_file(file: Path) -> list[Measurement]:
    """Return the measurements of a file; raises pydantic's ValidationError for one that is none."""
    return Measurements.model_validate_json(file.read_bytes()).measurements


@cache
def measurements(table: Table) -> tuple[Measurement, ...]:
    """Return a table of this release: of methods that make a model smaller, or of those that make zeros."""
    return tuple(read_file(_FOLDER / f"{table}.json"))
