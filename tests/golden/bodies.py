"""The jobs: `python -m tests.golden.bodies` writes bodies.json anew, with every parameter spelled out.

What is committed is compared with, so that a later change of a default moves nothing here.
"""

import copy
import json
from pathlib import Path
from typing import Any

from core.methods.registry import parse_parameters
from tests.golden.inputs import DEEP, LANGUAGE_MODELS

BODIES = Path(__file__).parent / "bodies.json"

_TEXT = {
    "calibration": {"dataset": "text", "samples": 8, "sequence_length": 24, "seed": 0},
    "evaluation": {"datasets": ["text"], "samples": 8, "sequence_length": 24},
}
_LANGUAGE = ("random", "magnitude", "wanda", "admm", "frontier")
_AS_PUBLISHED: dict[str, Any] = {"attention": "kv_groups", "compensation": {"refit": 0, "ridge": 0.01}}
_STRUCTURED: dict[str, dict[str, Any]] = {
    "random-structured": _AS_PUBLISHED,
    "l2-structured": _AS_PUBLISHED,
    "llm-pruner": _AS_PUBLISHED,
    "bonsai": _AS_PUBLISHED | {"masks_per_round": 12, "round_share": 0.15, "sequences": 4},
    "loraprune": _AS_PUBLISHED | {"steps": 10, "batch_size": 2},
    "lorashear": _AS_PUBLISHED | {"steps": 20, "batch_size": 2, "periods": 2},
    "depth": {"compensation": _AS_PUBLISHED["compensation"]},
}
_RETRAINED = {"retrain_steps": 4, "batch_size": 8, "rounds": 2}


def bodies() -> dict[str, dict[str, Any]]:
    """Return the body of each job by its name."""
    jobs: dict[str, dict[str, Any]] = {}
    for model in LANGUAGE_MODELS:
        jobs[f"sparsegpt {model}"] = _language(model, "sparsegpt", sparsity=0.5)
    jobs["sparsegpt deep"] = _language(DEEP, "sparsegpt", sparsity=0.5)
    for method in _LANGUAGE:
        jobs[method] = _language("llama", method, sparsity=0.5)
    for method, parameters in _STRUCTURED.items():
        jobs[method] = _language("llama", method, sparsity=0.3, pattern="structured", **parameters)
    jobs["wanda 2:4"] = _language("llama", "wanda", pattern="2:4")
    jobs["wanda owl"] = _language("llama", "wanda", sparsity=0.5, allocation="owl")
    jobs["sparsegpt fisher"] = _language("llama", "sparsegpt", sparsity=0.5, allocation="fisher")
    jobs["l2 per layer"] = _language(
        "llama", "l2-structured", sparsity=0.3, pattern="structured", scope="model", **_AS_PUBLISHED
    ) | {"output": {"layout": "per_layer"}}
    jobs["packed"] = _language("llama", "magnitude", sparsity=0.6) | {"output": {"format": "packed"}}
    for kind in ("finetune", "lora", "distill"):
        jobs[f"{kind} after wanda"] = _language("llama", "wanda", sparsity=0.5) | {
            "recovery": {"method": kind, "dataset": "text", "steps": 4, "batch_size": 2, "sequence_length": 24}
        }
    jobs["sensitivity"] = _language("llama", "sensitivity")
    for method in ("magnitude", "obs"):
        jobs[f"{method} lenet"] = _classifier("lenet-5", method, sparsity=0.5)
    jobs["obs whole network"] = _classifier("digits-1989", "obs", sparsity=0.05, mode="exact", curvature_images=20)
    jobs["obd lenet"] = _classifier("lenet-5", "obd", sparsity=0.5, curvature_images=20, **_RETRAINED)
    jobs["iterative lenet"] = _classifier("lenet-5", "iterative-magnitude", sparsity=0.5, scan_images=20, **_RETRAINED)
    jobs["hashed lenet"] = _classifier("lenet-5", "magnitude", sparsity=0.5) | {
        "output": {"format": "hashed", "compression": 0.25}
    }
    for model in ("resnet", "vit"):
        jobs[f"wanda {model}"] = _classifier(model, "wanda", sparsity=0.5)
    jobs["filter-l1"] = _classifier("resnet", "filter-l1", sparsity=0.3, pattern="structured", measured_images=20)
    jobs["filter-taylor"] = _classifier(
        "resnet", "filter-taylor", sparsity=0.3, pattern="structured", measured_images=20, retrain_steps=2
    )
    return jobs


def _language(model: str, method: str, **asked: Any) -> dict[str, Any]:
    return _body(model, method, copy.deepcopy(_TEXT), asked)


def _classifier(model: str, method: str, **asked: Any) -> dict[str, Any]:
    images = f"images-{model}"
    texts = {"calibration": {"dataset": images, "samples": 20, "seed": 0}, "evaluation": {"datasets": [images]}}
    return _body(model, method, texts, asked)


def _body(model: str, method: str, texts: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return a body whose parameters are those asked for and, spelled out, the defaults that are values."""
    body: dict[str, Any] = {"model": model, "method": method, **texts}
    body |= {key: asked.pop(key) for key in ("sparsity", "pattern") if key in asked}
    checked = parse_parameters(method, asked, body.get("pattern"))
    body["parameters"] = checked.model_dump(mode="json", exclude_none=True)
    return body


if __name__ == "__main__":
    BODIES.write_text(json.dumps(bodies(), indent=1) + "\n", encoding="utf-8")
