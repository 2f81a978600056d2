"""Classifiers on the simulated accelerator: what is pruned, trained and written is the CPU's, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.evaluation.accuracy import measure_accuracy
from core.engine.evaluation.classifier_reload_check import classifier_reload_check, write_expected
from core.engine.models.classifier import load_classifier, open_classifier
from core.methods.registry import METHODS
from tests.engine.classifier_folders import CLASSES, FAMILIES, image_shape, make_classifier
from tests.engine.classifying import random_images
from tests.simulator.devices import SimulatedDevice
from tests.simulator.jobs import prune_network

CPU = torch.device("cpu")
_EVERY = [
    (name, "2:4" if pattern == "n:m" else pattern)
    for name, method in METHODS.items()
    if method.prunes and "image-classification" in method.task_families
    for pattern in method.patterns
]


def same_on_both(simulated: SimulatedDevice, place: Path, name: str, *how: str, **parameters: Any) -> None:
    source = make_classifier(place / "model", name)
    here = prune_network(source, name, place / "cpu", CPU, *how, **parameters)
    there = prune_network(source, name, place / "sim", simulated.device, *how, **parameters)
    assert there == here and simulated.counts.launches > 20


@pytest.mark.parametrize(
    ("name", "method", "pattern"),
    [("resnet", "sparsegpt", "2:4"), ("vit", "filter-taylor", "structured"), ("mlp", "obd", "unstructured"),
     ("mlp", "obs", "unstructured"), ("lenet-5", "filter-l1", "structured")],
)  # fmt: skip
def test_a_pruned_classifier_is_the_cpu_s(
    name: str, method: str, pattern: str, simulated: SimulatedDevice, tmp_path: Path
) -> None:
    same_on_both(simulated, tmp_path, name, method, pattern)


@pytest.mark.nightly
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("method", "pattern"), _EVERY)
def test_every_method_s_classifier_is_the_cpu_s(
    method: str, pattern: str, name: str, simulated: SimulatedDevice, tmp_path: Path
) -> None:
    if method == "obs" and name not in ("mlp", "vit"):
        pytest.skip("its inverse is of small layers")
    same_on_both(simulated, tmp_path, name, method, pattern)


def test_accuracy_and_the_reload_check_are_the_cpu_s(simulated: SimulatedDevice, tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", "resnet")
    images = random_images(20, image_shape("resnet"), classes=CLASSES)
    here, there = (load_classifier(open_classifier(folder), device) for device in (CPU, simulated.device))
    assert measure_accuracy(there, images, batch_size=8) == measure_accuracy(here, images, batch_size=8)
    write_expected(there, images.batch(range(4)), tmp_path / "expected.safetensors")
    assert classifier_reload_check(folder, tmp_path / "expected.safetensors", device=simulated.device)
