"""Figures of the benches as the measurements that come with a release. Loads no torch."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from core.measurements.measurement import Measurement, Measurements, Spread
from core.measurements.reader import read_file


def merge(file: Path, rows: Iterable[Measurement]) -> None:
    """Write measurements into a file, ordered by method. They replace those of the same jobs; all others stay."""
    known = {each.job: each for each in (read_file(file) if file.exists() else [])} | {each.job: each for each in rows}
    ordered = sorted(known.values(), key=lambda each: (each.method, each.layout, each.sparsity, repr(each.job)))
    text = Measurements(measurements=ordered).model_dump(mode="json", exclude_none=True)
    file.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n")


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of one figure, given for each seed."""
    return Spread(mean=fmean(values), deviation=stdev(values) if len(values) > 1 else None, seeds=len(values))
