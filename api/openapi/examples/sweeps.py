"""Sweeps."""

from typing import Any, Final

from api.openapi.examples.common import CALIBRATION, COMPARISON, EVALUATION, JOB, LATER, MOMENT

_SWEEP = "swp_01JNB2V6H7Q8R9S0T1V2W3X4Y5"
_SWEEP_JOB = {"model": "smollm2-135m", "calibration": CALIBRATION, "evaluation": EVALUATION}
_SWEEP_GRID = {"method": ["wanda", "sparsegpt"], "sparsity": [0.4, 0.5]}
_SWEEP_ANSWER = {
    "id": _SWEEP,
    "object": "sweep",
    "name": "how far SmolLM2 goes",
    "kind": "grid",
    "status": "succeeded",
    "error": None,
    "waiting_for": None,
    "created_at": MOMENT,
    "finished_at": LATER,
    "model": "smollm2-135m",
    "job": _SWEEP_JOB,
    "grid": _SWEEP_GRID,
    "search": None,
    "max_concurrent": 2,
    "points": {
        "total": 4,
        "waiting": 0,
        "queued": 0,
        "running": 0,
        "succeeded": 4,
        "failed": 0,
        "cancelled": 0,
        "not_run": 0,
    },
    "skipped": [],
    "dense": [{"kind": "perplexity", "name": "wikipedia-articles", "job": JOB}],
}
_POINT = {
    "number": 0,
    "stage": "full",
    "label": "wanda · 40%",
    "values": {"method": "wanda", "sparsity": 0.4},
    "job": JOB,
    "status": "succeeded",
    "error": None,
    "figures": {
        "parameters": 92_050_000,
        "bytes": 269_030_016,
        "latency_ms": 61.0,
        "perplexity": 32.1,
        "accuracy": None,
        "perplexity_ratio": 1.28,
        "accuracy_drop": None,
        "task_accuracy_drop": None,
        "latency_ratio": 1.0,
        "bytes_ratio": 1.0,
    },
    "unmet": [],
    "on_front": True,
}

EXAMPLES: Final[dict[str, Any]] = {
    "Comparison": COMPARISON,
    "SweepBody": {"name": "how far SmolLM2 goes", "job": _SWEEP_JOB, "grid": _SWEEP_GRID, "max_concurrent": 2},
    "Sweep": _SWEEP_ANSWER,
    "SweepResults": {
        "object": "sweep_results",
        "sweep": _SWEEP_ANSWER,
        "points": [_POINT],
        "trade_off": COMPARISON["trade_off"],
        "best": [
            {"objective": "min_perplexity", "number": 0, "label": "wanda · 40%", "job": JOB, "value": 32.1},
        ],
        "search": None,
    },
}

PARAMETERS: Final[dict[str, Any]] = {
    "sweep_id": _SWEEP,
}
