"""Common parts of the examples."""

from typing import Any, Final

MOMENT: Final = "2026-03-02T09:30:00Z"
LATER: Final = "2026-03-02T09:31:52Z"
JOB: Final = "job_01JNB2V6H7Q8R9S0T1V2W3X4Y5"
SHA256: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CALIBRATION: Final[dict[str, Any]] = {
    "dataset": "wikipedia-calibration",
    "samples": 32,
    "sequence_length": 512,
    "seed": 0,
}
EVALUATION: Final[dict[str, Any]] = {
    "datasets": ["wikipedia-articles"],
    "sequence_length": 512,
    "samples": 64,
    "tasks": ["piqa"],
    "task_limit": 100,
    "prompts": ["The capital of France is"],
    "prompt_tokens": 8,
}
METRICS: Final[dict[str, Any]] = {
    "perplexity": {
        "wikipedia-articles": {
            "dense": 25.0,
            "before_recovery": 56.2,
            "pruned": 41.5,
            "ratio": 1.66,
            "ratio_stderr": 0.012,
            "sequence_length": 512,
            "bits_per_byte": {
                "dense": 1.1005,
                "before_recovery": 1.3775,
                "pruned": 1.2738,
                "ratio": 1.1575,
                "ratio_stderr": 0.0022,
                "bytes": 138_000,
                "tokens": 32_704,
            },
        }
    },
    "tasks": {
        "piqa": {
            "dense": 0.68,
            "pruned": 0.62,
            "dense_stderr": 0.0469,
            "pruned_stderr": 0.0488,
            "metric": "acc",
            "samples": 100,
        }
    },
    "task_mean": {"dense": 0.68, "pruned": 0.62},
    "sparsity": {"prunable": 0.5, "model": 0.39},
    "parameters": {"dense": 134515008, "nonzero": 81430848},
    "bytes": {"dense": 269060552, "artifact": 269060552},
    "latency": {"dense_ms": 101.3, "pruned_ms": 101.1},
    "seconds": {"prune": 63.0, "total": 112.0},
    "peak_memory_bytes": 1_020_000_000,
}
BODY: Final[dict[str, Any]] = {
    "model": "smollm2-135m",
    "method": "wanda",
    "sparsity": 0.5,
    "calibration": CALIBRATION,
    "evaluation": EVALUATION,
    "recovery": {"method": "lora", "steps": 200},
    "gates": {"max_perplexity_ratio": 2.4},
    "metadata": {"commit": "abc"},
}
FULL_BODY: Final[dict[str, Any]] = {
    **BODY,
    "pattern": "unstructured",
    "target": None,
    "parameters": {"variant": False},
    "vocabulary": {
        "tokens": 16384,
        "amount": None,
        "keep": ["Secateur"],
        "scripts": None,
        "round_to": 64,
        "datasets": [],
    },
    "recovery": {
        "method": "lora",
        "steps": 200,
        "minutes": None,
        "learning_rate": 0.0001,
        "batch_size": 8,
        "warmup_ratio": 0.05,
        "schedule": "cosine",
        "dataset": None,
        "stages": None,
        "resample_every": None,
        "samples": None,
        "sequence_length": 512,
        "seed": 0,
        "lora": {"r": 8, "alpha": 16.0, "dropout": 0.05, "targets": None},
        "train_embeddings": None,
        "own_text": None,
        "temperature": None,
        "label_weight": None,
        "hidden_states": None,
        "teacher": None,
        "checkpoint_every": 50,
    },
    "output": {"format": "dense", "dtype": "keep", "layout": "uniform"},
    "queue": "default",
    "priority": 0,
    "time_limit_seconds": None,
}
JOB_ANSWER: Final[dict[str, Any]] = {
    "id": JOB,
    "object": "job",
    "status": "succeeded",
    "stage": "store",
    "progress": 1.0,
    "attempt": 1,
    "created_at": MOMENT,
    "started_at": MOMENT,
    "finished_at": LATER,
    "waiting_reason": None,
    "left_out": [],
    "estimated_seconds": 118.0,
    "estimated_seconds_deviation": 0.12,
    "seconds_left": None,
    "error": None,
    "metrics": METRICS,
    "verdict": {
        "band": "noticeably worse",
        "within_noise": False,
        "worse_than_random": False,
        "figure": "perplexity",
        "on": "wikipedia-articles",
        "ratio": 1.66,
        "change": None,
        "words": "noticeably worse",
        "reason": "perplexity on wikipedia-articles is 1.66 times the dense model's (± 0.012)",
    },
    "model_revision": f"sha256:{SHA256}",
    "warnings": [],
    **FULL_BODY,
}
OTHER_JOB: Final = "job_01JNB4C8K1M2N3P4Q5R6S7T8V9"
COMPARISON: Final[dict[str, Any]] = {
    "object": "comparison",
    "jobs": [JOB_ANSWER, {**JOB_ANSWER, "id": OTHER_JOB, "sparsity": 0.6}],
    "labels": ["wanda 50% + lora", "wanda 60% + lora"],
    "fields": [
        {"name": "sparsity", "kind": "request", "values": [0.5, 0.6], "differs": True},
        {"name": "status", "kind": "figure", "values": ["succeeded", "succeeded"], "differs": False},
    ],
    "trade_off": {
        "quality": "perplexity:wikipedia-articles",
        "qualities": ["accuracy:piqa", "bits_per_byte:wikipedia-articles", "perplexity:wikipedia-articles"],
        "cost": "parameters",
        "points": [
            {"label": "wanda 50% + lora", "job": JOB, "quality": 41.5, "cost": 81430848, "beaten_by": None},
            {"label": "wanda 60% + lora", "job": OTHER_JOB, "quality": 63.2, "cost": 70814016, "beaten_by": None},
            {"label": "smollm2-135m, dense", "job": None, "quality": 25.0, "cost": 134515008, "beaten_by": None},
        ],
        "without": [],
        "notes": [],
    },
    "layers": [{"job": JOB, "layers": ["layer 0", "layer 1"], "sparsity": [0.5, 0.5], "error": [0.071, 0.093]}],
}
