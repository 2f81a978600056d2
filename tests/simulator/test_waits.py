"""How often the program waits for the device while a model is pruned, and where: figures of docs/gpu.md."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from core.engine.evaluation.timing import timed
from tests.families import small_parameters
from tests.simulator.devices import SimulatedDevice
from tests.simulator.jobs import model_folder, prune_language

_LAYERS = 2
_OF_A_RESULT = (
    "engine/models/accelerator.py", "engine/evaluation/", "engine/models/streamed.py", "streams/block_gradients.py",
)  # fmt: skip
"""Modules that wait for what is written, for figures of evaluation and losses, and in a forward of a whole model."""


def _require_of_each_layer(number: int, waits: Counter[str]) -> None:
    """Require so many waits of a layer for what is pruned, those for a result left out."""
    in_layers = {place: n for place, n in waits.items() if not any(each in place for each in _OF_A_RESULT)}
    assert sum(in_layers.values()) == number * _LAYERS, in_layers


@pytest.mark.parametrize(
    ("method", "pattern", "most"),
    [("wanda", "2:4", 1), ("sparsegpt", "unstructured", 5), ("sparsegpt", "2:4", 5), ("admm", "2:4", 1),
     ("frontier", "unstructured", 6)],
)  # fmt: skip
def test_a_block_of_seven_linear_layers_is_pruned_with_so_many_waits(
    method: str, pattern: str, most: int, simulated: SimulatedDevice, waits: Counter[str], tmp_path: Path
) -> None:
    allocation = "fisher" if method == "frontier" else "uniform"
    prune_language(model_folder(tmp_path), tmp_path / "work", simulated.device, method, pattern, allocation=allocation)
    _require_of_each_layer(most, waits)


@pytest.mark.parametrize(
    ("method", "most"),
    [("l2-structured", 2), ("llm-pruner", 2), ("flap", 2)],
)  # fmt: skip
def test_heads_and_channels_are_chosen_with_a_wait_for_the_scores_of_each(
    method: str, most: int, simulated: SimulatedDevice, waits: Counter[str], tmp_path: Path
) -> None:
    how = small_parameters(method, "structured", {"attention": "kv_groups", "compensation": {"refit": 0}})
    prune_language(model_folder(tmp_path), tmp_path / "work", simulated.device, method, "structured", **how)
    _require_of_each_layer(most, waits)


def test_a_call_is_timed_from_when_the_device_has_nothing_to_do_until_it_is_done(simulated: SimulatedDevice) -> None:
    ones = torch.ones(8, device=simulated.device)
    with simulated.counting() as counts:
        timed(lambda: ones * 2, simulated.device)
    assert counts.waits == 2
