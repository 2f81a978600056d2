"""The figures and the report of one prune task, from what the sweep found."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from core.engine.architectures.description import ModelDescription
from worker.runner.specs import PruneSpec, TextSource

if TYPE_CHECKING:
    from core.engine.pruning.block_pass import PruneResult
    from core.engine.pruning.layerwise.plan import Plan
    from core.engine.pruning.units.plan import StructuredPlan


def prune_result(
    spec: PruneSpec,
    description: ModelDescription,
    plan: "Plan | StructuredPlan",
    result: "PruneResult",
    *,
    artifact_bytes: int,
    peak: dict[str, int],
    calibration_shape: tuple[int, ...] | None,
    evaluation_shapes: dict[str, tuple[int, ...]],
    bos: bool | None,
) -> dict[str, Any]:
    """Return `metrics`, `report` and `expected` as the supervisor expects them. Sizes in bytes."""
    metrics = {
        "perplexity": {
            name: {
                "dense": pair.dense,
                "pruned": pair.pruned,
                "ratio": pair.pruned / pair.dense,
                "sequence_length": evaluation_shapes[name][1],
            }
            for name, pair in result.perplexity.items()
        },
        "sparsity": {"prunable": result.removed / result.prunable, "model": result.removed / description.parameters},
        "parameters": {"dense": description.parameters, "nonzero": description.parameters - result.removed},
        "bytes": {"dense": description.bytes, "artifact": artifact_bytes},
        "peak_memory_bytes": peak.get("device", peak["resident"]),
    }
    report = {
        "job": spec.job,
        "attempt": spec.attempt,
        "model": {"name": spec.model.name, "revision": spec.model.revision}
        | description.model_dump(mode="json", exclude={"linears"}),
        "layers": [asdict(row) for row in result.layers],
        "layer_sparsities": list(result.sparsities),
        "texts": {
            "calibration": described_text(spec.calibration) if spec.calibration else None,
            "generated": described_text(spec.generated) if spec.generated else None,
            "evaluation": {text.name: described_text(text) for text in spec.evaluation},
        },
        "notes": result.notes,
        "tokens": {
            "calibration": calibration_shape,
            "evaluation": evaluation_shapes,
            "windows": "non-overlapping; calibration shuffled by seed, evaluation evenly spaced over the text",
            "bos_begins_each_window": bos,
        },
        "engine": {
            **plan.facts(),
            **({"refits": dict(result.refits)} if result.refits else {}),
            "resumed_from_block": result.resumed_from,
        },
        "peak_memory": peak,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("secateur-server", "torch", "transformers", "safetensors")},
    }
    return {"metrics": metrics, "report": report, "expected": str(result.verification)}


def described_text(source: TextSource) -> dict[str, Any]:
    """Describe a text: its name and hash, and for one of the hub its commit."""
    return {"name": source.name, "sha256": source.sha256, **source.origin}
