"""A guard that counts: each stage of a fixed small job costs what is stored, in operations, loads and bytes."""

from collections.abc import Collection
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cost.counting import Cost, cost_of
from tests.cost.stages import RELEASES, costs, stored

_SHARE = 0.01
"""Share by which a number of bytes or allocations may differ from the stored one; products and loads are exact."""
_EXACT = ("flops", "loads")
_OF_FILES = ("read_bytes", "written_bytes")
_BYTES_OF_THE_SYSTEM = 16384
"""Bytes by which readings of the system's own files, as of free memory, differ by run and machine."""
_OF_THE_LIBRARIES = ("read_bytes", "allocations", "peak_bytes")
"""Counts that another release of a library may change; they are compared with the releases of the figures alone."""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cost]:
    return dict(costs(tmp_path_factory.mktemp("cost")))


def differences(found: dict[str, Any], known: dict[str, Any], without: Collection[str] = ()) -> list[str]:
    """Return each count that is not as stored, with both; those `without` are not compared."""

    def allowed(key: str) -> float:
        share = 0.0 if key in _EXACT else _SHARE * known[key]
        return share + (_BYTES_OF_THE_SYSTEM if key in _OF_FILES else 0)

    return [
        f"{key}: {value:,} instead of {known[key]:,}"
        for key, value in found.items()
        if key not in without and abs(value - known[key]) > allowed(key)
    ]


def test_each_stage_costs_what_is_stored(counted: dict[str, Cost]) -> None:
    known = stored()
    releases = known.pop("releases")
    without = () if releases == {name: version(name) for name in RELEASES} else _OF_THE_LIBRARIES
    assert counted.keys() == known.keys()
    found = {stage: differences(asdict(cost), known[stage], without) for stage, cost in counted.items()}
    wrong = [f"{stage}, {each}" for stage, lines in found.items() for each in lines]
    assert not wrong, "is it meant? then: python -m tests.cost.stages"


def test_one_load_of_each_model_serves_a_job_beside_the_reload_check(counted: dict[str, Cost]) -> None:
    loads = {stage: cost.loads for stage, cost in counted.items() if cost.loads}
    assert loads == {"write": 1, "measure": 2, "verify": 1}


def test_what_is_counted_is_what_was_done(tmp_path: Path) -> None:
    def work() -> None:
        left, right = torch.ones(32, 64), torch.ones(64, 16)
        (tmp_path / "file").write_bytes(bytes((left @ right).addmm_(left, right).numpy().tobytes()))
        (tmp_path / "file").read_bytes()

    cost = cost_of(work)
    assert cost.flops == 2 * (2 * 32 * 64 * 16) and cost.loads == 0
    tensors = 4 * (32 * 64 + 64 * 16 + 32 * 16)
    assert tensors <= cost.peak_bytes <= tensors + 64 and 3 <= cost.allocations <= 6
    assert 2048 <= cost.written_bytes < 4096 and 2048 <= cost.read_bytes < 4096


def test_a_count_that_is_not_as_stored_is_told_with_both() -> None:
    known = asdict(Cost(flops=1000, loads=1, read_bytes=10**6, written_bytes=10**6, allocations=1000, peak_bytes=10**6))
    assert not differences(known | {"read_bytes": 1_005_000, "allocations": 1009}, known)
    found = differences(known | {"flops": 1001, "loads": 2, "allocations": 980, "peak_bytes": 1_020_000}, known)
    assert found == [
        "flops: 1,001 instead of 1,000",
        "loads: 2 instead of 1",
        "allocations: 980 instead of 1,000",
        "peak_bytes: 1,020,000 instead of 1,000,000",
    ]
