"""What a pruned classifier leaves: a folder that opens, an ONNX file that runs without us, and nothing that differs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageClassification

from core.engine.architectures.description import CLASSIFICATION, SHAPES_KEY
from core.engine.checkpoints.files import ONNX_FILE
from core.engine.evaluation.classifier_latency import measure_classifier_latency
from core.engine.evaluation.classifier_reload_check import classifier_reload_check, write_expected
from core.engine.exporters.huggingface_classifier import round_to_stored, write_classifier
from core.engine.exporters.onnx.graph import export_onnx
from core.engine.models.classifier import load_classifier, open_classifier
from core.pipeline.reports.how_to_run import ways_to_run
from core.pipeline.reports.report import Report
from secateur_wire.errors import ReloadCheckFailed
from secateur_wire.metrics import Metrics
from tests.engine.classifier_folders import image_shape, images, make_classifier, remove_channels, zero_half
from tests.engine.crossing import partly
from tests.families import CLASSIFIERS
from tests.shown_ways import run_here

CPU = torch.device("cpu")

REMOVED = {
    "resnet": [
        ("resnet.encoder.stages.1.layers.0.layer.0.convolution", [0, 5]),
        ("resnet.embedder.embedder.convolution", [3]),
    ],
    "mobilenet-v2": [("mobilenet_v2.layer.2.expand_1x1.convolution", [1, 2])],
    "convnext": [("convnext.encoder.stages.0.layers.0.pwconv1", [0, 7, 9])],
    "vit": [("vit.layers.0.mlp.fc1", [0, 1, 23])],
    "timm-resnet": [("timm_model.layer2.0.conv1", [4])],
    "lenet-5": [("network.body.0", [0, 1, 2]), ("network.body.5", [7])],
}  # fmt: skip


def onnx_logits(file: Path, images_NCHW: torch.Tensor, batch: int) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["pixel_values"]
    assert [each.name for each in session.get_outputs()] == ["logits"]
    assert session.get_inputs()[0].shape == ["batch", *images_NCHW.shape[1:]]
    return torch.cat(
        [torch.from_numpy(session.run(None, {"pixel_values": part.numpy()})[0]) for part in images_NCHW.split(batch)]
    )


def saved(model: nn.Module, source: Path, target: Path, name: str) -> tuple[Path, torch.Tensor]:
    """The artifact, and the logits of the model in it."""
    folder = open_classifier(source)
    round_to_stored(model, folder)
    size = write_classifier(model, folder, target)
    assert size == open_classifier(target).description.bytes
    return target, logits_of(model, name)


def exported(model: nn.Module, target: Path, name: str) -> Path:
    assert export_onnx(model, image_shape(name), target / ONNX_FILE) == (target / ONNX_FILE).stat().st_size
    return target / ONNX_FILE


def logits_of(model: nn.Module, name: str) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(pixel_values=images(name)).logits
    return logits


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_family_pruned_is_the_same_in_its_folder(name: str, tmp_path: Path) -> None:
    source = make_classifier(tmp_path / "model", name)
    model = load_classifier(open_classifier(source))
    zero_half(model)
    artifact, expected = saved(model, source, tmp_path / "artifact", name)
    stored, before = load_file(artifact / "model.safetensors"), load_file(source / "model.safetensors")
    assert {key: (each.shape, each.dtype) for key, each in stored.items()} == {
        key: (each.shape, each.dtype) for key, each in before.items()
    }
    assert (artifact / "config.json").read_bytes() == (source / "config.json").read_bytes()
    plain = AutoModelForImageClassification.from_pretrained(artifact).eval()
    torch.testing.assert_close(logits_of(plain, name), expected, atol=1e-5, rtol=1e-5)


@partly("name", CLASSIFIERS, in_every_run=["convnext"])  # LeNet-5, VGG, ViT and MLP are in other tests
def test_every_family_pruned_is_the_same_in_onnx(name: str, tmp_path: Path) -> None:
    model = load_classifier(open_classifier(make_classifier(tmp_path / "model", name)))
    zero_half(model)
    for layer, channels in REMOVED.get(name, []):
        remove_channels(model, name, layer, channels)
    file = exported(model, tmp_path, name)
    for batch in (1, 3):
        computed = onnx_logits(file, images(name), batch)
        torch.testing.assert_close(computed, logits_of(model, name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", REMOVED)
def test_a_network_that_lost_channels_is_built_again(name: str, tmp_path: Path) -> None:
    source = make_classifier(tmp_path / "model", name)
    folder = open_classifier(source)
    model = load_classifier(folder)
    for layer, channels in REMOVED[name]:
        remove_channels(model, name, layer, channels)
    artifact, expected = saved(model, source, tmp_path / "artifact", name)
    again = open_classifier(artifact)
    assert again.description.reshaped and again.description.parameters < folder.description.parameters
    assert torch.equal(logits_of(load_classifier(again), name), expected)
    if name == "mobilenet-v2":
        assert again.groups.keys() == {"mobilenet_v2.layer.2.conv_3x3.convolution"}
    else:
        assert not again.groups
    # A job takes what another made, and what it leaves is still built from the first config.
    zero_half(model)
    write_classifier(model, again, tmp_path / "second")
    assert json.loads((tmp_path / "second" / "config.json").read_bytes()).get(SHAPES_KEY) == again.groups
    assert load_classifier(open_classifier(tmp_path / "second")) is not None


def test_what_is_measured_is_what_is_saved(tmp_path: Path) -> None:
    source = make_classifier(tmp_path / "model", "resnet", dtype=torch.float16)
    tensors = load_file(source / "model.safetensors")
    kept = next(key for key in tensors if key.endswith("running_var"))
    save_file(tensors | {kept: torch.full_like(tensors[kept], 1e6, dtype=torch.float32)}, source / "model.safetensors")
    folder = open_classifier(source)
    model = load_classifier(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    artifact, expected = saved(model, source, tmp_path / "artifact", "resnet")
    stored = load_file(artifact / "model.safetensors")
    assert {each.dtype for key, each in stored.items() if not key.endswith("num_batches_tracked")} == {
        torch.float16, torch.float32,
    }  # fmt: skip
    assert torch.isfinite(stored[kept]).all(), "a value that half precision cannot hold stays in its own dtype"
    assert torch.equal(logits_of(load_classifier(open_classifier(artifact)), "resnet"), expected)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """LeNet-5, half pruned, as an artifact; and 100 images with their logits."""
    folder = tmp_path_factory.mktemp("digits")
    source = make_classifier(folder / "model", "lenet-5", classes=10)
    model = load_classifier(open_classifier(source))
    zero_half(model)
    artifact, _ = saved(model, source, folder / "artifact", "lenet-5")
    exported(model, artifact, "lenet-5")
    write_expected(model, images("lenet-5", 100), folder / "expected.safetensors")
    return artifact, folder / "expected.safetensors"


def test_100_images_agree_in_fresh_processes(digits: tuple[Path, Path]) -> None:
    figures = classifier_reload_check(*digits, device=CPU)
    assert figures["images"] == 100 and not figures["from_pretrained"]  # a network of this project's own
    largest = load_file(digits[1])["logits"].abs().max()
    assert figures["tolerance"] == pytest.approx(1e-4 * float(largest))
    assert figures["maximum_difference"] <= figures["tolerance"]
    assert figures["onnx"]["maximum_difference"] <= figures["tolerance"]
    assert figures["onnx"]["batches"] == [1, 32]


def test_the_check_of_half_precision_is_as_strict_and_it_runs_as_a_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_classifier(tmp_path / "model", "vit", dtype=torch.float16)
    model = load_classifier(open_classifier(source))
    zero_half(model)
    artifact, _ = saved(model, source, tmp_path / "artifact", "vit")
    exported(model, artifact, "vit")
    write_expected(model, images("vit", 4), tmp_path / "expected.safetensors")
    figures = classifier_reload_check(artifact, tmp_path / "expected.safetensors", device=CPU)
    assert figures["dtype"] == "float16" and figures["from_pretrained"]
    assert figures["maximum_difference"] <= figures["tolerance"]
    report = Report.model_validate({"model": {"task": CLASSIFICATION}, "verification": figures})
    ways = ways_to_run(report, Metrics(), [file.name for file in artifact.iterdir()])
    assert [way.runtime for way in ways] == ["transformers", "ONNX Runtime"]
    for way in ways:
        (place := tmp_path / way.runtime).mkdir()
        assert re.fullmatch(r"(tensor\()?\[\d\]\)?\n", run_here(way, artifact, place, monkeypatch))


def test_a_weight_changed_in_the_folder_or_in_the_onnx_file_is_noticed(
    digits: tuple[Path, Path], tmp_path: Path
) -> None:
    artifact = shutil.copytree(digits[0], tmp_path / "artifact")
    graph = onnx.load(str(artifact / ONNX_FILE))
    bias = next(each for each in graph.graph.initializer if list(each.dims) == [10])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    onnx.save(graph, str(artifact / ONNX_FILE))
    with pytest.raises(ReloadCheckFailed, match=r"model\.onnx differ by 0\.1"):
        classifier_reload_check(artifact, digits[1], device=CPU)
    (artifact / ONNX_FILE).write_bytes((digits[0] / ONNX_FILE).read_bytes()[:5000])
    with pytest.raises(ReloadCheckFailed, match=r"model\.onnx does not run in onnxruntime"):
        classifier_reload_check(artifact, digits[1], device=CPU)
    tensors = load_file(artifact / "model.safetensors")
    tensors["network.head.bias"][0] += 0.1
    save_file(tensors, artifact / "model.safetensors", {"format": "pt"})
    with pytest.raises(ReloadCheckFailed, match=r"reloaded model differ by 0\.1"):
        classifier_reload_check(artifact, digits[1], device=CPU)


def test_dense_and_pruned_are_timed_in_both_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.engine.evaluation.classifier_latency._ENOUGH_MS", 1.0)
    dense = open_classifier(make_classifier(tmp_path / "model", "mlp"))
    model = load_classifier(dense)
    remove_channels(model, "mlp", "network.body.1", [0, 3])
    write_classifier(model, dense, tmp_path / "artifact")
    pruned = open_classifier(tmp_path / "artifact")
    export_onnx(load_classifier(dense), (1, 28, 28), dense.path / ONNX_FILE)  # as an artifact brings its own
    measured = measure_classifier_latency(dense, pruned, image_shape=(1, 28, 28), device=CPU, batches=(1, 4))

    assert not any("No speed-up" in note for note in measured["notes"])
    rows = measured["latency"]["rows"]
    assert [(row["engine"], row["batch"]) for row in rows] == [
        ("pytorch", 1), ("onnxruntime", 1), ("pytorch", 4), ("onnxruntime", 4),
    ]  # fmt: skip
    assert all(row["dense_ms"] > 0 and row["pruned_ms"] > 0 for row in rows)
    assert measured["latency"]["pruned_ms"] == rows[0]["pruned_ms"]
    with_zeros = measure_classifier_latency(dense, dense, image_shape=(1, 28, 28), device=CPU, batches=(1,))
    assert any("No speed-up" in note for note in with_zeros["notes"])
