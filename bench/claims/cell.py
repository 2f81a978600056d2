"""The program of a cell: the measurement its spec names, for its seed, in a process of its own."""

import importlib
from typing import Any

from bench.cell_program import answer
from bench.claims.record import Record


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """`claim` is the measurement's name, `setting` what it is given besides the seed."""
    record = Record()
    importlib.import_module(f"bench.claims.measurements.{spec['claim']}").measure(spec["seed"], spec["setting"], record)
    return record.figures()


if __name__ == "__main__":
    answer(measure)
