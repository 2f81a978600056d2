"""The interface to a device: what decisions come from it, and that each call is about the device it names."""

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

import tests.simulator.registration  # noqa: F401
from core.device_kinds import CPU, CUDA, DEVICE_KINDS, DeviceKind, device_kind, fastest_kind, kind_of_machine
from core.engine.architectures.description import inspect_folder
from core.engine.evaluation.timing import timed
from core.engine.models.accelerator import BACKENDS, CUDABackend, DeviceBackend, backend_of, default_device
from core.engine.models.folder import open_model
from core.engine.models.generation import sequences_that_fit
from core.engine.models.precision import bfloat16_matmul, forward_dtype, gradient_dtype
from core.engine.pruning.blocks.plan import UnitRemovalPlan
from core.engine.recovery.precision import training_precision
from core.pipeline.plans import make_plan
from core.service.jobs.estimates.compute import Tokens
from core.service.jobs.estimates.resources import estimate_resources
from core.settings import Settings
from secateur_wire.errors import InternalError, OutOfMemory
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_model
from tests.recipes import recipe_of
from tests.simulator.devices import NAME

_NAME = NAME  # that of the one device that torch can be told of in a process
_DEVICE = torch.device(_NAME, 1)


class MadeUpBackend(DeviceBackend):
    """A device on which nothing can be computed, with 1000 bytes free."""

    kind = DeviceKind(
        name=_NAME,
        round_to=4,
        logits_bytes=2**20,
        solver_elements=2**10,
        prefers_16_bit=True,
        operations_per_second=1e15,
        process_bytes=3 * 2**30,
        context_bytes=7 * 2**20,
    )
    calls: list[tuple[str, Any]]

    @classmethod
    def is_available(cls) -> bool:
        return True

    def free_bytes(self) -> int:
        return 1000

    def peak_bytes(self) -> int:
        return 500

    def synchronise(self) -> None:
        self.calls.append(("synchronise", self.device))

    def pinned(self, tensor: Tensor) -> Tensor:
        return tensor

    def copy_out(self, tensor: Tensor) -> Tensor:
        return tensor

    def prefers_bfloat16(self) -> bool:
        return True

    def training(self, mixed_precision: str | None = None) -> Accelerator:
        self.calls.append(("training", mixed_precision))
        return Accelerator(cpu=True)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpBackend]:
    monkeypatch.setitem(DEVICE_KINDS, _NAME, MadeUpBackend.kind)
    monkeypatch.setitem(BACKENDS, _NAME, MadeUpBackend)
    monkeypatch.setattr(MadeUpBackend, "calls", [], raising=False)
    return MadeUpBackend


def test_the_fastest_device_there_is_is_the_default(
    made_up: type[MadeUpBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_device().type == _NAME
    monkeypatch.delitem(BACKENDS, _NAME)
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(CUDABackend, "is_available", classmethod(lambda cls, there=there: there))
        assert default_device() == torch.device(name)


def test_kinds_are_found_by_the_names_of_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_kind("cuda:1") is CUDA and device_kind("cpu") is CPU
    assert fastest_kind(["cpu", "cuda:3", "unheard-of"]) is CUDA
    assert fastest_kind([]) is fastest_kind(["unheard-of"]) is CPU
    with pytest.raises(InternalError, match="no device 'tpu:0': devices are cpu and cuda"):
        device_kind("tpu:0")
    with pytest.raises(InternalError, match="no device 'meta'"):
        backend_of(torch.device("meta"))
    with pytest.raises(ValueError, match="no device 'gpu': use cpu or cuda"):
        Settings(device="gpu")
    assert Settings(device="cuda:1").device == "cuda:1"
    file = tmp_path / "control"
    kind = DeviceKind("made-up", 1, 1, 1, True, 1e20, 1, control_file=file)
    monkeypatch.setitem(DEVICE_KINDS, kind.name, kind)
    assert kind_of_machine() in (CPU, CUDA)
    file.touch()
    assert kind_of_machine() is kind


def test_plans_and_precision_come_from_the_device_s_own_interface(made_up: type[MadeUpBackend], tmp_path: Path) -> None:
    folder = open_model(make_model(tmp_path / "model"))
    narrow = request_for(folder, "llm-pruner", 0.25)
    for device, multiple in ((_DEVICE, 4), (torch.device("cpu"), 8)):
        plan = make_plan(folder, narrow, device=device)
        assert isinstance(plan, UnitRemovalPlan) and plan.width_reduction is not None
        assert plan.width_reduction.round_to == multiple
    assert make_plan(folder, request_for(folder, "wanda", 0.5), device=_DEVICE).forward_dtype is torch.bfloat16
    assert forward_dtype("auto", torch.float32, _DEVICE) is torch.bfloat16
    assert gradient_dtype(torch.float16, _DEVICE) is torch.float16
    assert gradient_dtype(torch.float16, torch.device("cpu")) is torch.float32
    with bfloat16_matmul(_DEVICE):
        assert torch.get_float32_matmul_precision() == "medium"
    assert training_precision(torch.bfloat16, _DEVICE)[1] is torch.bfloat16
    assert training_precision(torch.float32, _DEVICE)[1] is torch.float32
    assert made_up.calls == [("training", "bf16"), ("training", "no")]


def test_memory_and_time_come_from_the_device_s_own_interface(made_up: type[MadeUpBackend], tmp_path: Path) -> None:
    description = inspect_folder(make_model(tmp_path / "model"))
    with pytest.raises(OutOfMemory, match=f"1000 are free on {_NAME}"):
        sequences_that_fit(description, 16, _DEVICE)
    job, tokens = recipe_of("wanda", sparsity=0.5), Tokens(calibration=192, evaluation=0, window=24)

    def needs(kind: DeviceKind) -> Any:
        return estimate_resources(description, job, tokens, device=kind, activation_budget_bytes=0, is_fetched=False)

    there, here = needs(fastest_kind([f"{_NAME}:1", "cpu"])), needs(CPU)
    assert here.peak_device_memory_bytes is None
    assert 0 < there.peak_device_memory_bytes - 7 * 2**20 <= here.peak_memory_bytes - CPU.process_bytes
    assert there.peak_memory_bytes > 3 * 2**30 and there.seconds < here.seconds

    timed(made_up.is_available, _DEVICE)
    assert made_up.calls == [("synchronise", _DEVICE)] * 2


def test_memory_of_freed_tensors_goes_back_to_the_machine() -> None:
    """Also from between tensors that stay, which keep the allocator from shrinking its heap."""
    process, freed = psutil.Process(), [torch.ones(2**18) for _ in range(128)]
    stay = [each.clone() for each in freed[::32]]
    before = process.memory_info().rss
    freed.clear()
    backend_of(torch.device("cpu")).release_memory()
    assert before - process.memory_info().rss > 100 * 2**20
    assert all(bool((each == 1).all()) for each in stay)
