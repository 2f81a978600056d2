"""Classifiers on the simulated accelerator: what is pruned, trained and written is the CPU's, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.evaluation.accuracy import measure_accuracy
from core.engine.evaluation.classifier_reload_check import classifier_reload_check, write_expected
from core.engine.exporters.huggingface_classifier import write_classifier
from core.engine.exporters.implementations import classifier_exporter
from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.filters.rankings import between_layers, taylor
from core.engine.pruning.network import Network
from tests.engine.classifier_folders import CLASSES, image_shape, make_classifier
from tests.engine.classifying import network, prune, random_images, scene
from tests.families import CLASSIFIERS, IN_FOURS, every_way, simulated_ways
from tests.simulator.devices import SimulatedDevice
from tests.simulator.host_work import at_work_on
from tests.simulator.jobs import prune_network

CPU = torch.device("cpu")
_EVERY = [
    (method, pattern, name)
    for method, pattern in every_way("image-classification")
    if method != "obs"  # an inverse of all weights at once: minutes, and no operator that the others have not
    for name in CLASSIFIERS
    if pattern != "2:4" or name in IN_FOURS
]


def same_on_both(simulated: SimulatedDevice, place: Path, name: str, *how: str, **parameters: Any) -> None:
    source = make_classifier(place / "model", name)
    here = prune_network(source, name, place / "cpu", CPU, *how, **parameters)
    there = prune_network(source, name, place / "sim", simulated.device, *how, **parameters)
    assert there == here and simulated.counts.launches > 20


@pytest.mark.parametrize(
    ("name", "method", "pattern", "parameters"),
    simulated_ways(CLASSIFIERS),
    ids=lambda value: str(value),
)
def test_a_pruned_classifier_is_the_cpu_s(
    name: str, method: str, pattern: str, parameters: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    same_on_both(simulated, tmp_path, name, method, pattern, **parameters)


def _of_few_units(device: torch.device, **asked: Any) -> Network:
    """A convolutional network with images for it."""
    model = network("vgg", classes=CLASSES, hidden_sizes=[3, 4], image_size=8).to(device)
    return scene(model, random_images(12, (1, 8, 8), classes=CLASSES), device=device, batch_size=8, **asked)


def test_the_ranking_of_filters_has_the_cpu_s_scores_in_main_memory(simulated: SimulatedDevice) -> None:
    def scores(device: torch.device) -> list[torch.Tensor]:
        place = _of_few_units(device)
        with at_work_on(device):
            groups = CoupledChannels.of(place.model, (1, 8, 8))
            return between_layers(taylor(place, groups, place.calibration))

    here, there = scores(CPU), scores(simulated.device)
    assert all(each.device == CPU and each.dtype == torch.float64 for each in there)
    assert all(map(torch.equal, there, here))


@pytest.mark.parametrize("curvature", ["gauss_newton", "empirical_fisher"])
def test_surgery_on_a_whole_network_is_the_cpu_s(curvature: str, simulated: SimulatedDevice) -> None:
    def weights(device: torch.device) -> torch.Tensor:
        place = _of_few_units(device, sparsity=0.1)
        with at_work_on(device):
            prune("obs", place, mode="exact", curvature=curvature, curvature_images=None)
        return torch.cat([each.detach().flatten().cpu() for each in place.model.parameters()])

    assert torch.equal(weights(simulated.device), weights(CPU))


@pytest.mark.nightly
@pytest.mark.parametrize(("method", "pattern", "name"), _EVERY)
def test_every_method_s_classifier_is_the_cpu_s(
    method: str, pattern: str, name: str, simulated: SimulatedDevice, tmp_path: Path
) -> None:
    same_on_both(simulated, tmp_path, name, method, pattern)


def test_accuracy_is_the_cpu_s(simulated: SimulatedDevice, tmp_path: Path) -> None:
    folder = open_classifier(make_classifier(tmp_path / "model", "resnet"))
    images = random_images(20, image_shape("resnet"), classes=CLASSES)
    here, there = (load_classifier(folder, device) for device in (CPU, simulated.device))
    assert measure_accuracy(there, images, batch_size=8) == measure_accuracy(here, images, batch_size=8)


@pytest.mark.nightly
def test_both_forms_of_an_artifact_give_the_device_s_logits(simulated: SimulatedDevice, tmp_path: Path) -> None:
    source = make_classifier(tmp_path / "model", "resnet")
    folder = open_classifier(source)
    model = load_classifier(folder, simulated.device)
    write_classifier(model, folder, tmp_path / "artifact")
    classifier_exporter("onnx").export(model, image_shape("resnet"), tmp_path / "artifact")
    images = random_images(4, image_shape("resnet"), classes=CLASSES)
    write_expected(model, images.batch(range(4)), tmp_path / "expected.safetensors")
    assert classifier_reload_check(tmp_path / "artifact", tmp_path / "expected.safetensors", device=simulated.device)
