"""The typed report: whatever a stage writes comes back as it was, and what nobody gave is left out."""

import json
from typing import Any

import pytest

from core.pipeline.reports.report import PeakMemory, Report

LANGUAGE: dict[str, Any] = {
    "job": "job_1",
    "attempt": 1,
    "model": {"name": "llama", "revision": "sha256:ab", "task": "language-model", "layers": 3, "structure": {"a": [1]}},
    "layers": [{"name": "layers.0.q_proj", "layer": 0, "zeros": 512, "sparsity": 0.5, "reconstruction_error": None}],
    "layer_sparsities": [0.5, 0.25],
    "texts": {"calibration": None, "generated": None, "evaluation": {"text": {"name": "text", "sha256": "cd"}}},
    "notes": ["a note"],
    "tokens": {"calibration": [8, 24], "windows": "non-overlapping"},
    "engine": {"propagation": "in_flight", "model_dtype": "float32", "device": "cpu", "resumed_from_block": 2},
    "peak_memory": {"resident": 5},
    "versions": {"python": "3.11", "torch": "2"},
    "dense": {
        "measured": 1,
        "taken": 0,
        "figures": [
            {"kind": "perplexity", "name": "text", "facts": {"a": 1}, "values": {"perplexity": 9}, "job": "job_1"}
        ],
    },
    "target": {"kind": "bytes", "asked": 900, "reached": 800, "met": True, "spread": 0.0, "sparsity": None},
    "gates": {
        "missed": None,
        "rows": [{"gate": "max_bytes", "limit": 9, "figure": 8, "on": None, "kept": True, "message": "", "margin": 0}],
        "max_bytes": 9,
    },
    "metrics": {"perplexity": {}, "bytes": {"dense": 10, "artifact": 8}},
    "recipe": {"model": "llama"},
}
CLASSIFIER: dict[str, Any] = {
    "job": "job_2",
    "images": {"calibration": None, "shape": [1, 28, 28], "counts": {}},
    "method": {"mode": "exact", "reconstruction_errors": {"conv": 0.5}},
    "versions": {},
    "hashed": {"compression": 0.5, "layers": [{"tensor": "a.weight", "out": 2, "seed": 0, "buckets": 3}], "bytes": 12},
    "peak_memory": {"resident": 5, "device": 7},
    "recovery": {"method": "lora", "steps": 4, "sparsity": {"before": 0.5, "after": 0.5}, "loss": [[1, 2.5]]},
}


@pytest.mark.parametrize("report", [{}, LANGUAGE, CLASSIFIER, {"of_later": {"a": [1, None]}}])
def test_a_report_is_written_as_it_was_read(report: dict[str, Any]) -> None:
    assert json.dumps(Report.model_validate(report).document()) == json.dumps(report)


def test_what_stages_add_is_kept() -> None:
    report = Report.model_validate({"job": "job_1"})
    report.note("one", "two")
    report.keep_peak("verify", PeakMemory(resident=3))
    report.keep_peak("measure", PeakMemory(resident=4, device=9))
    report.note("three")
    assert json.dumps(report.document()) == json.dumps(
        {
            "job": "job_1",
            "notes": ["one", "two", "three"],
            "peak_memory_of_other_processes": {"verify": {"resident": 3}, "measure": {"resident": 4, "device": 9}},
        }
    )
