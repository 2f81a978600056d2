"""Checks of saved models that do not fit a device: their matrices stay on the disk, and the logits are the same."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import inspect_folder
from core.engine.evaluation.reload_memory import offloaded_needs
from core.engine.exporters.huggingface import write_checkpoint
from core.pipeline.messages import ModelPlace
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.verify.spec import VerificationOutput, VerifySpec
from core.progress import Progress
from tests.engine.exporters.test_per_layer import PROTECTED, prune
from tests.engine.pruning.test_experts import PER_EXPERT, opened
from tests.engine.tiny import make_model, make_tokens
from tests.simulator.backend import LIKE_CUDA
from tests.simulator.devices import SimulatedDevice
from tests.simulator.host_work import at_work_on

_CPU = torch.device("cpu")
_SHAPE: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 32,
}  # fmt: skip
Saved = tuple[Path, Path, Architecture | None]
"""Artifact, the logits it must give, and its architecture where that was discovered."""


def _per_layer(work: Path) -> Saved:
    source = make_model(work / "model", **_SHAPE)
    artifact, result = prune(source, work / "work", "l2-structured", 0.2, PROTECTED)
    return artifact, result.verification, None


def _mixture(work: Path) -> Saved:
    folder = opened(PER_EXPERT)
    request = resolve_request(folder.description, UnresolvedRequest("magnitude", "unstructured", 0.5))
    work.mkdir()
    result = walk_for(folder, request, device=_CPU, calibration=make_tokens(), evaluations={}, work=work).run()
    write_checkpoint(result.files, result.unchanged, folder.path, work / "artifact", config=result.config)
    return work / "artifact", result.verification, folder.family


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(_per_layer, id="layers that differ"),
        pytest.param(_mixture, id="mixture", marks=pytest.mark.nightly),
    ],
)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    make: Callable[[Path], Saved] = request.param
    return make(tmp_path_factory.mktemp("saved") / "made")


def test_a_model_larger_than_its_device_passes_the_check_as_it_would_whole(
    saved: Saved, simulated: SimulatedDevice, tmp_path: Path
) -> None:
    artifact, expected, discovered = saved
    place = ModelPlace(path=artifact, own_artifact=True, discovered=discovered)
    spec = VerifySpec(
        artifact=place, expected=expected, modules=tmp_path / "modules", offload=tmp_path / "offload",
        device=str(simulated.device), threads=1,
    )  # fmt: skip

    def verify() -> VerificationOutput:
        with at_work_on(simulated.device):
            output = run_stage(spec, Progress(), lambda: 0)
        assert isinstance(output, VerificationOutput)
        return output

    whole = verify().verification
    stored = sum(file.stat().st_size for file in artifact.glob("*.safetensors"))
    assert not whole.offloaded and simulated.peak > stored
    simulated.reset()
    simulated.capacity = stored
    offloaded = verify().verification
    assert offloaded.model_dump() == whole.model_dump() | {"offloaded": True}, "the logits are the same"
    assert not spec.offload.exists()
    description = inspect_folder(artifact, own_artifact=True, discovered=discovered)
    assert simulated.peak <= offloaded_needs(description, LIKE_CUDA).device_memory
    gc.collect()
    assert simulated.allocated <= simulated.left, "all that was taken is given back"
