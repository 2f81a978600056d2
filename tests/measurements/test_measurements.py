"""The measured tables that come with a release: they read as what they are, and what is none is refused."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from core.measurements.measurement import Measurement
from core.measurements.reader import Table, measurements, read_file
from core.methods.registry import METHODS

ROW: dict[str, Any] = {
    "model": {"name": "smollm2-135m", "family": "Llama", "parameters": 134_515_008},
    "method": "flap",
    "pattern": "structured",
    "layout": "per_layer",
    "parameters": {"attention": "none"},
    "calibration_tokens": 32_768,
    "sparsity": 0.158,
    "blocks": 0.2,
    "removed": 0.157,
    "perplexity": {"in_domain": {"mean": 1.9, "deviation": 0.1, "seeds": 3}, "out_of_domain": {"mean": 2.5}},
    "prefill": {"ratio": 0.84, "spread": 0.01},
    "seconds": {"mean": 30.0},
    "processor_seconds": {"mean": 55.0},
    "peak_bytes": 10**9,
    "machine": "a machine",
    "threads": 2,
    "measured": "2026-11-28",
    "releases": "secateur-server 0.1.0",
}


@pytest.mark.parametrize("table", get_args(Table))
def test_every_row_of_a_table_is_a_job_of_this_release(table: Table) -> None:
    for row in measurements(table):
        assert ("n:m" if ":" in row.pattern else row.pattern) in METHODS[row.method].patterns
        assert (row.pattern == "structured") == (table != "zeros")
        assert (row.blocks is not None) == (table == "structured"), "tokens are no part of blocks"
    assert len({row.job for row in measurements(table)}) == len(measurements(table))


def test_a_row_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text(json.dumps({"measurements": [ROW, ROW | {"parameters": {"budget": "quick"}}]}))
    first, second = read_file(file)
    assert first == Measurement.model_validate(ROW)
    assert (first.budget, second.budget) == (None, "quick") and first.job != second.job
    assert first.perplexity["out_of_domain"].seeds == 1 and first.decode is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"sparsity": 1.2}, "less than 1"),
        ({"perplexity": {"elsewhere": {"mean": 1.0}}}, "in_domain"),
        ({"seconds": {"mean": 1.0, "deviation": 0.5}}, "a deviation belongs to several seeds"),
        ({"seconds": {"mean": 1.0, "seeds": 3}}, "a deviation belongs to several seeds"),
        ({"latency": 0.5}, "Extra inputs"),
    ],
)
def test_what_is_no_measurement_is_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Measurement.model_validate(ROW | changed)
