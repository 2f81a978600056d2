"""Checks of saved models that do not fit a device: their matrices stay on the disk, and the logits are the same."""

import gc
from pathlib import Path
from typing import Any

from core.engine.architectures.describe import inspect_folder
from core.engine.evaluation.forward_memory import offloaded_needs
from core.pipeline.messages import ModelPlace
from core.pipeline.stages.evaluation_spec import VerificationOutput, VerifySpec
from core.pipeline.stages.run import run_stage
from core.progress import Progress
from tests.engine.exporters.test_per_layer import PROTECTED, prune
from tests.engine.tiny import make_model
from tests.simulator.backend import LIKE_CUDA
from tests.simulator.devices import SimulatedDevice
from tests.simulator.host_work import at_work_on

_SHAPE: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 32,
}  # fmt: skip


def test_a_model_larger_than_its_device_passes_the_check_as_it_would_whole(
    simulated: SimulatedDevice, tmp_path: Path
) -> None:
    """Its layers differ, as sizes by layer are what is hardest to place."""
    artifact, result = prune(
        make_model(tmp_path / "model", **_SHAPE), tmp_path / "work", "l2-structured", 0.2, PROTECTED
    )
    expected, place = result.verification, ModelPlace(path=artifact, own_artifact=True)
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
    description = inspect_folder(artifact, own_artifact=True)
    assert simulated.peak <= offloaded_needs(description, LIKE_CUDA).device_memory
    gc.collect()
    assert simulated.allocated <= simulated.left, "all that was taken is given back"
