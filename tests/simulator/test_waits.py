"""How often the program waits for the device while a model is pruned, and where: figures of docs/gpu.md."""

import traceback
from collections import Counter
from pathlib import Path

import pytest

from tests.simulator.devices import SimulatedDevice
from tests.simulator.jobs import model_folder, prune_language

_LAYERS = 2
_OF_A_RESULT = ("engine/models/tensors.py", "engine/evaluation/", "engine/models/streamed.py")
"""Modules that wait for what is written, for figures of evaluation, and in transformers' forward of a whole model."""


@pytest.mark.parametrize(
    ("method", "pattern", "waits"),
    [("wanda", "unstructured", 1), ("sparsegpt", "unstructured", 5), ("sparsegpt", "2:4", 5), ("admm", "2:4", 5)],
)
def test_a_block_of_seven_linear_layers_is_pruned_with_so_many_waits(
    method: str,
    pattern: str,
    waits: int,
    simulated: SimulatedDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places: Counter[str] = Counter()
    synchronise = SimulatedDevice.synchronise

    def noting(device: SimulatedDevice, reason: str) -> None:
        product = [frame for frame in traceback.extract_stack() if "/core/" in frame.filename]
        places[product[-1].filename.rpartition("/core/")[2]] += 1
        synchronise(device, reason)

    monkeypatch.setattr(SimulatedDevice, "synchronise", noting)
    prune_language(model_folder(tmp_path), tmp_path / "work", simulated.device, method, pattern, allocation="uniform")
    in_blocks = {place: count for place, count in places.items() if not place.startswith(_OF_A_RESULT)}
    assert sum(in_blocks.values()) == waits * _LAYERS, in_blocks
