"""What goes to a device and leaves it while a model is pruned, what is read meanwhile, and what is waited for."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.engine.models.streamed import read_ahead
from core.progress import Progress
from secateur_wire.errors import NotFiniteWeights
from tests.engine.tiny import make_model
from tests.simulator.devices import Counts, SimulatedDevice
from tests.simulator.jobs import model_folder, prune_language

_MOST = 1.05
"""Most bytes that go to the device for a block, to its own."""


class _Blocks(Progress):
    """Counts of the work on a device between the end of the first block and that of the second, and what each left."""

    def __init__(self, simulated: SimulatedDevice) -> None:
        self.counts = Counts()
        self.left: list[int] = []
        self._simulated = simulated

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        self.left.append(self._simulated.allocated)
        if done == 1:
            self._before, self._simulated.counts = self._simulated.counts, self.counts
        elif done == 2:
            self._simulated.counts = self._before


def _readers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("reader")]


def _wide(folder: Path, width: int) -> Path:
    return make_model(
        folder, dtype=torch.bfloat16, hidden_size=width, intermediate_size=5 * width // 2, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, head_dim=width // 4,
    )  # fmt: skip


def _saved(work: Path, block: int) -> dict[str, Tensor]:
    return load_file(work / "resume" / "block" / "lasting" / f"{block:05d}.safetensors")


@pytest.mark.parametrize(
    ("method", "pattern", "parameters"),
    [("sparsegpt", "unstructured", {}), ("llm-pruner", "structured", {"compensation": {"refit": 0}})],
    ids=["weights", "units"],
)
def test_the_weights_of_a_block_go_to_the_device_once_from_pinned_memory_and_a_wide_one_is_waited_for_no_longer(
    method: str, pattern: str, parameters: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    width = 256 if pattern == "structured" else 128  # places of units grow with the width, weights with its square
    waits = []
    for each in (64, width):
        blocks, work = _Blocks(simulated), tmp_path / f"work-{each}"
        source = _wide(tmp_path / f"model-{each}", each)
        prune_language(source, work, simulated.device, method, pattern, progress=blocks, **parameters)
        waits.append(blocks.counts.waits)
    assert 0 < waits[0] == waits[1]
    block, counts = 2 * (4 * width**2 + 3 * width * 5 * width // 2 + 2 * width), blocks.counts
    assert block <= counts.bytes_to_device <= _MOST * block, f"{counts.bytes_to_device / block:.3f}"
    assert counts.pinned_bytes_to_device == block, "all weights, and nothing else, is read ahead"
    saved = sum(each.nbytes for each in _saved(work, 1).values())
    assert saved <= counts.pinned_bytes_to_host, "weights leave without a wait for each"
    assert counts.bytes_to_host - counts.pinned_bytes_to_host < 0.05 * block, "what is read by itself is small"
    assert blocks.left[1] <= blocks.left[0], "a block leaves something on the device"


def test_what_a_reader_finds_is_raised_at_its_block_and_no_thread_is_left(
    simulated: SimulatedDevice, tmp_path: Path
) -> None:
    source = model_folder(tmp_path)
    file = source / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][0, 0] = torch.inf
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(NotFiniteWeights, match=name):
        prune_language(source, tmp_path / "work", simulated.device, "wanda")
    assert _saved(tmp_path / "work", 0) and not _readers(), "the block before it is done"


def test_no_more_than_one_is_read_ahead() -> None:
    begun: list[int] = []
    is_read = [threading.Event() for _ in range(4)]

    def read(item: int) -> int:
        begun.append(item)
        is_read[item].set()
        return item * item

    contents = read_ahead(read, range(4))
    assert next(contents) == 0 and is_read[1].wait(timeout=120)
    assert begun == [0, 1]
    assert list(contents) == [1, 4, 9] and not _readers()
    assert list(read_ahead(read, [])) == []
