"""A pruned classifier against the dense one: latency, in two engines, and what the model card says of it all."""

from pathlib import Path

import pytest
import torch

from core.engine.checkpoints.files import ONNX_FILE
from core.engine.evaluation.classifier_latency import measure_classifier_latency
from core.engine.exporters.huggingface_classifier import write_classifier
from core.engine.exporters.onnx.graph import export_onnx
from core.engine.models.classifier import load_classifier, open_classifier
from tests.engine.classifier_folders import make_classifier, remove_channels

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
