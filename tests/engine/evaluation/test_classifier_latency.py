"""A pruned classifier against the dense one: latency, in two engines, and what the model card says of it all."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.checkpoints.files import ONNX_FILE
from core.engine.evaluation.classifier_latency import measure_classifier_latency
from core.engine.exporters.huggingface_classifier import write_classifier
from core.engine.exporters.onnx.graph import export_onnx
from core.engine.models.classifier import load_classifier, open_classifier
from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from tests.engine.classifier_folders import make_classifier, remove_channels
from tests.recipes import recipe_of

CPU = torch.device("cpu")


def test_dense_and_pruned_are_timed_in_both_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.engine.evaluation.classifier_latency._ENOUGH_MS", 1.0)
    dense = open_classifier(make_classifier(tmp_path / "model", "mlp"))
    model = load_classifier(dense)
    remove_channels(model, "mlp", "network.body.1", [0, 3])
    write_classifier(model, dense, tmp_path / "artifact")
    pruned = open_classifier(tmp_path / "artifact")
    export_onnx(load_classifier(dense), (1, 28, 28), dense.path / ONNX_FILE)  # as an artifact brings its own
    capsys.readouterr()
    measured = measure_classifier_latency(dense, pruned, image_shape=(1, 28, 28), device=CPU, batches=(1, 4))
    assert capsys.readouterr().out == "", "the exporter keeps quiet"
    assert not any("No speed-up" in note for note in measured["notes"])
    rows = measured["latency"]["rows"]
    assert [(row["engine"], row["batch"]) for row in rows] == [
        ("pytorch", 1), ("onnxruntime", 1), ("pytorch", 4), ("onnxruntime", 4),
    ]  # fmt: skip
    assert all(row["dense_ms"] > 0 and row["pruned_ms"] > 0 for row in rows)
    assert measured["latency"]["pruned_ms"] == rows[0]["pruned_ms"]
    with_zeros = measure_classifier_latency(dense, dense, image_shape=(1, 28, 28), device=CPU, batches=(1,))
    assert any("No speed-up" in note for note in with_zeros["notes"])


def test_the_card_has_the_figures_and_how_to_open_the_folder(tmp_path: Path) -> None:
    description = open_classifier(make_classifier(tmp_path / "model", "mlp")).description
    row = {"engine": "onnxruntime", "device": "cpu", "batch": 32, "dense_ms": 2.0, "pruned_ms": 1.0}
    accuracy = {
        "dense": 0.9, "pruned": 0.88, "difference": -0.02, "dense_stderr": 0.01, "pruned_stderr": 0.01,
        "dense_loss": 0.3, "pruned_loss": 0.35, "samples": 1000, "before_recovery": 0.6,
    }  # fmt: skip
    report: dict[str, Any] = {
        "model": description.model_dump(mode="json"),
        "metrics": {
            "sparsity": {"prunable": 0.1, "model": 0.1},
            "accuracy": {"digits_test": accuracy},
            "flops": {"dense": 2_000_000, "pruned": 1_000_000},
            "parameters": {"dense": 10_000, "nonzero": 9_000},
            "bytes": {"dense": 40_000, "artifact": 36_000, "onnx": 37_000},
            "latency": {"image_shape": [1, 28, 28], "rows": [row]},
        },
        "verification": {"from_pretrained": False, "image_shape": [1, 28, 28]},
    }
    recipe = recipe_of("magnitude", model="an mlp")
    card = model_card(recipe, Report.model_validate(report))
    assert "pipeline_tag: image-classification" in card
    assert (
        "| top-1 accuracy, digits\\_test (1,000 images) | 90.00% ± 1.00% | 88.00% ± 1.00% (-2.00 points; 60.00% "
        in card
    )
    assert "| FLOPs for an image | 2,000,000 | 1,000,000 |" in card
    assert "| 32 images of 1 × 28 × 28 in onnxruntime on cpu | 2.00 ms | 1.00 ms (× 0.500 ± 5.0%) |" in card
    assert "AutoModelForImageClassification" not in card
    assert "numpy.zeros((1, 1, 28, 28), numpy.float32)" in card
    report["verification"]["from_pretrained"] = True
    assert "AutoModelForImageClassification.from_pretrained" in model_card(recipe, Report.model_validate(report))
