"""Classifiers on the simulated accelerator: what is pruned, trained and written is the CPU's, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.evaluation.accuracy import measure_accuracy
from core.engine.models.classifier import load_classifier, open_classifier
from tests.engine.classifier_folders import CLASSES, image_shape, make_classifier
from tests.engine.classifying import network, prune, random_images, scene
from tests.families import CLASSIFIERS, simulated_ways
from tests.simulator.devices import SimulatedDevice
from tests.simulator.host_work import at_work_on
from tests.simulator.jobs import prune_network

CPU = torch.device("cpu")


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


def test_surgery_on_a_whole_network_is_the_cpu_s(simulated: SimulatedDevice) -> None:
    def weights(device: torch.device) -> torch.Tensor:
        model = network("vgg", classes=CLASSES, hidden_sizes=[3, 4], image_size=8).to(device)
        images = random_images(12, (1, 8, 8), classes=CLASSES)
        place = scene(model, images, device=device, batch_size=8, sparsity=0.1)
        with at_work_on(device):
            prune("obs", place, mode="exact", curvature="gauss_newton", curvature_images=None)
        return torch.cat([each.detach().flatten().cpu() for each in place.model.parameters()])

    assert torch.equal(weights(simulated.device), weights(CPU))


def test_accuracy_is_the_cpu_s(simulated: SimulatedDevice, tmp_path: Path) -> None:
    folder = open_classifier(make_classifier(tmp_path / "model", "resnet"))
    images = random_images(20, image_shape("resnet"), classes=CLASSES)
    here, there = (load_classifier(folder, device) for device in (CPU, simulated.device))
    assert measure_accuracy(there, images, batch_size=8) == measure_accuracy(here, images, batch_size=8)
