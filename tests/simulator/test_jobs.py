"""The engine on the simulated accelerator, from opening to artifact: what it leaves is the CPU's, bit for bit."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from core.progress import WorkStopped
from tests.engine.classifier_folders import CLASSES, make_classifier
from tests.engine.classifying import network, prune, random_images, scene
from tests.engine.watching import Watching
from tests.families import CLASSIFIERS, LANGUAGE_MODELS, simulated_ways
from tests.simulator.backend import LIKE_CUDA, simulate
from tests.simulator.devices import SimulatedDevice
from tests.simulator.host_work import at_work_on
from tests.simulator.jobs import model_folder, prune_language, prune_network, recover_language

CPU = torch.device("cpu")
_RECOVERIES: list[dict[str, Any]] = [
    {"method": "finetune"},
    {"method": "lora", "lora": {"r": 2, "alpha": 4, "dropout": 0.1}},
    {"method": "distill", "lora": None},
]


@pytest.mark.parametrize(
    ("name", "method", "pattern", "parameters"),
    [
        *simulated_ways(LANGUAGE_MODELS),
        ("llama-untied", "sparsegpt", "unstructured", {"include_lm_head": True}),
    ],
    ids=lambda value: str(value),
)
def test_a_pruned_model_is_the_cpu_s(
    name: str, method: str, pattern: str, parameters: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    source = model_folder(tmp_path, name)
    here, there = (
        prune_language(source, tmp_path / device.type, device, method, pattern, **parameters)
        for device in (CPU, simulated.device)
    )
    assert there == here and simulated.counts.launches > 100
    gc.collect()
    assert simulated.allocated <= simulated.left, "all that was taken is given back"


@pytest.mark.parametrize("recovery", _RECOVERIES, ids=lambda value: value["method"])
def test_a_recovered_model_is_the_cpu_s(recovery: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path) -> None:
    here = recover_language(tmp_path / "cpu", CPU, **recovery)
    there = recover_language(tmp_path / "sim", simulated.device, **recovery)
    assert there == here and simulated.counts.launches > 100


def test_a_recovery_that_goes_on_ends_on_the_device_as_the_cpu_s(simulated: SimulatedDevice, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"method": "distill", "lora": None, "steps": 6}  # so many that predictions are kept
    whole = recover_language(tmp_path / "cpu", CPU, **asked)
    with pytest.raises(WorkStopped):
        recover_language(tmp_path / "first", simulated.device, progress=Watching(stop_after=3), **asked)
    then = Watching()
    again = recover_language(
        tmp_path / "then", simulated.device, previous=[tmp_path / "first" / "work"], progress=then, **asked
    )
    assert then.logs == ["continuing after step 4 of 6"] and again == whole


def test_with_cuda_s_own_choices_a_16_bit_model_is_pruned_and_trained(tmp_path: Path) -> None:
    with simulate(LIKE_CUDA) as (_, simulated):
        source = model_folder(tmp_path, dtype=torch.bfloat16)
        result = prune_language(source, tmp_path / "pruned", simulated.device, "llm-pruner", "structured")
        assert result["reload"]["maximum_difference"] < 0.1
        recovered = recover_language(tmp_path, simulated.device, torch.bfloat16, method="lora")
        assert all(after >= before > 0 for before, after in recovered["zeros"].values())


@pytest.mark.parametrize(
    ("name", "method", "pattern", "parameters"),
    simulated_ways(CLASSIFIERS),
    ids=lambda value: str(value),
)
def test_a_pruned_classifier_is_the_cpu_s(
    name: str, method: str, pattern: str, parameters: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    source = make_classifier(tmp_path / "model", name)
    here, there = (
        prune_network(source, name, tmp_path / device.type, device, method, pattern, **parameters)
        for device in (CPU, simulated.device)
    )
    assert there == here and simulated.counts.launches > 20


def test_surgery_on_a_whole_network_is_the_cpu_s(simulated: SimulatedDevice) -> None:
    def weights(device: torch.device) -> torch.Tensor:
        model = network("vgg", classes=CLASSES, hidden_sizes=[3, 4], image_size=8).to(device)
        images = random_images(12, (1, 8, 8), classes=CLASSES)
        place = scene(model, images, device=device, batch_size=8, sparsity=0.1)
        with at_work_on(device):
            prune("obs", place, mode="exact", curvature="gauss_newton", curvature_images=None)
        return torch.cat([each.detach().flatten().cpu() for each in place.model.parameters()])

    assert torch.equal(weights(simulated.device), weights(CPU))
