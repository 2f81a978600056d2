"""Examples of the steps before a job: the discovery of a model, samples, and plans."""

from typing import Any, Final

from api.openapi.examples.common import JOB, LATER, MOMENT, SHA256

_DISCOVERY: Final = {
    "id": f"discovery_{SHA256}",
    "object": "discovery",
    "state": "found",
    "architecture": "OlmoHybridForCausalLM",
    "transformers_version": "5.24.0",
    "created_at": MOMENT,
    "started_at": MOMENT,
    "finished_at": LATER,
    "error": None,
}
_PERPLEXITY: Final = {
    "estimate": 1.19,
    "low": 1.14,
    "high": 1.28,
    "source": "measurements",
    "count": 2,
    "basis": "2 measurements on smollm2-135m, as this model is, at 50% to 70% of the weights",
}
_ANSWERS: Final = {
    "estimate": 0.42,
    "low": 0.31,
    "high": 0.57,
    "source": "jobs",
    "count": 1,
    "basis": "1 job of this team on this model, at 35% of the weights",
}
_BITS: Final = {
    **_PERPLEXITY,
    "estimate": 1.054,
    "low": 1.041,
    "high": 1.077,
    "basis": f"{_PERPLEXITY['basis']}; the dense perplexity of 25 was measured on wikipedia-articles",
}
_BYTES: Final = {
    "estimate": 1.0,
    "low": 1.0,
    "high": 1.0,
    "source": "account",
    "count": 0,
    "basis": "counted: what is left of every tensor, in its own type",
}
_SECONDS: Final = {
    "estimate": 230.0,
    "low": 153.0,
    "high": 345.0,
    "source": "jobs",
    "count": 12,
    "basis": "a formula, corrected by 12 jobs of the same method and queue",
}
_REQUEST: Final = {
    "id": "sample_01JNB2V6H7Q8R9S0T1V2W3X4Y7",
    "object": "sample_request",
    "state": "ready",
    "goal": "speed",
    "step": "Converting the model to safetensors…",
    "job_id": JOB,
    "error": None,
    "created_at": MOMENT,
    "started_at": MOMENT,
    "finished_at": LATER,
}

EXAMPLES: Final[dict[str, Any]] = {
    "Discovery": _DISCOVERY,
    "PlanBody": {"model": "smollm2-135m", "goal": "sparsity", "keep_quality": 1.3},
    "Plan": {
        "object": "plan",
        "model": "smollm2-135m",
        "goal": "sparsity",
        "amount": 0.35,
        "job": {
            "model": "smollm2-135m",
            "method": "frontier",
            "pattern": "unstructured",
            "sparsity": 0.35,
            "parameters": {"budget": "quick"},
            "calibration": {"dataset": "wikipedia-calibration", "samples": 32, "sequence_length": 512},
            "evaluation": {"datasets": ["wikipedia-articles"], "samples": 64, "sequence_length": 512},
            "gates": {"max_perplexity_ratio": 1.3},
        },
        "summary": "Set to zero 35 % of the prunable weights of smollm2-135m with Frontier (unstructured), calibrated "
        "on wikipedia-calibration in 3 to 7 min: expect perplexity of 1.19 times the dense model's (1.14 to 1.28).",
        "choices": [
            {
                "field": "amount",
                "value": 0.35,
                "reason": "the largest amount whose whole band stays within 1.3 times the perplexity",
            }
        ],
        "figures": {
            "answer_kl": _ANSWERS,
            "perplexity_ratio": _PERPLEXITY,
            "bits_per_byte_ratio": _BITS,
            "bytes_ratio": _BYTES,
            "seconds": _SECONDS,
        },
        "points": [
            {
                "amount": 0.35,
                "figures": {"perplexity_ratio": _PERPLEXITY, "bits_per_byte_ratio": _BITS, "bytes_ratio": _BYTES},
            }
        ],
        "answers": "answers change",
        "unknown": [
            "prefill_ratio and decode_ratio: zeros are faster only in runtimes and on devices made for them",
        ],
        "warnings": [],
        "alternatives": [
            {
                "name": "dense as gguf Q8_0",
                "output": {"exports": [{"format": "gguf", "types": ["Q8_0"]}]},
                "bytes": 144811712,
                "ratio": 0.269,
                "basis": f"measured by {JOB}",
                "kl": 0.0004,
                "top_1": 0.991,
                "perplexity_ratio": None,
            }
        ],
        "instead": None,
    },
    "SampleRequest": _REQUEST,
    "SampleBody": {"goal": "speed"},
}

PARAMETERS: Final[dict[str, Any]] = {
    "discovery_id": _DISCOVERY["id"],
    "request_id": _REQUEST["id"],
}
