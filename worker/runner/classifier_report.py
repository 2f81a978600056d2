"""The figures and the report of one image classifier, from what pruning and recovery left of it."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from core.engine.evaluation.accuracy import Accuracy
from core.engine.models.classifier import ClassifierFolder
from core.engine.pruning.network import Scene, weight_of
from worker.runner.specs import ClassifierSpec, ImageSource

_VERSIONS = ("secateur-server", "torch", "transformers", "safetensors", "timm", "torch-pruning", "onnx", "onnxruntime")


def classifier_result(
    spec: ClassifierSpec,
    folder: ClassifierFolder,
    scene: Scene,
    *,
    accuracy: Mapping[str, tuple[Accuracy, Accuracy, Accuracy | None]],
    flops: tuple[int, int],
    image_shape: tuple[int, int, int],
    counts: Mapping[str, Any],
    sizes: Mapping[str, int],
    recovered: Mapping[str, Any],
) -> dict[str, Any]:
    """Return `metrics` and `report` of a pruned classifier.

    `accuracy` is dense, pruned, and before recovery where there was one, of each set; `flops` dense and pruned of one
    image; `sizes` bytes of the artifact's two forms.
    """
    description = folder.description
    rows = _rows(scene)
    zeros = sum(row["zeros"] for row in rows)
    left = sum(each.numel() for each in scene.model.parameters())
    gone = description.parameters - left + zeros
    metrics = {
        "perplexity": {},
        "accuracy": {name: _pair(*figures) for name, figures in accuracy.items()},
        "flops": {"dense": flops[0], "pruned": flops[1]},
        "sparsity": {
            "prunable": sum(row["removed"] + row["zeros"] for row in rows) / sum(layer.numel for layer in scene.layers),
            "model": gone / description.parameters,
        },
        "parameters": {"dense": description.parameters, "nonzero": description.parameters - gone},
        "bytes": {"dense": description.bytes, **sizes},
    }
    report = {
        "job": spec.job,
        "attempt": spec.attempt,
        "model": {"name": spec.model.name, "revision": spec.model.revision}
        | description.model_dump(mode="json", exclude={"linears", "labels"}),
        "layers": rows,
        "images": {
            "calibration": described_images(spec.calibration),
            "recovery": described_images(spec.recovery),
            "evaluation": {each.name: described_images(each) for each in spec.evaluation},
            "shape": list(image_shape),
            "counts": dict(counts),
        },
        "method": scene.figures,
        "notes": list(dict.fromkeys(scene.notes)),
        "engine": {"device": scene.device.type, "model_dtype": description.dtype, "forward_dtype": "float32"},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _VERSIONS},
    }
    if recovered:
        report["recovery"] = dict(recovered)
    return {"metrics": metrics, "report": report}


def _rows(scene: Scene) -> list[dict[str, Any]]:
    """Return a row for each prunable layer: its shape before and after, and its zeros."""
    rows = []
    for layer in scene.layers:
        weight = weight_of(scene.model, layer.name)
        zeros = int((weight == 0).sum())
        left = weight.numel()
        rows.append(
            {
                "name": layer.name,
                "layer": layer.layer,
                "out_features": layer.out_features,
                "in_features": layer.in_features,
                "kept_shape": list(weight.shape),
                "zeros": zeros,
                "removed": layer.numel - left,
                "sparsity": (layer.numel - left + zeros) / layer.numel,
            }
        )
    return rows


def _pair(dense: Accuracy, pruned: Accuracy, before: Accuracy | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "dense": dense.top1,
        "pruned": pruned.top1,
        "difference": pruned.top1 - dense.top1,
        "dense_stderr": dense.standard_error,
        "pruned_stderr": pruned.standard_error,
        "dense_loss": dense.loss,
        "pruned_loss": pruned.loss,
        "samples": pruned.samples,
    }
    return figures if before is None else figures | {"before_recovery": before.top1}


def described_images(source: ImageSource | None) -> dict[str, Any] | None:
    """Describe an image set: its name and hash, and for one of the hub its commit."""
    return None if source is None else {"name": source.name, "sha256": source.sha256, **source.origin}
