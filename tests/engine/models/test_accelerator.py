"""Devices and their arithmetic: which is taken, what each multiplies faster, and memory that goes back."""

from pathlib import Path

import psutil
import pytest
import torch

from core.device_kinds import CPU, CUDA, DEVICE_KINDS, DeviceKind, device_kind, fastest_kind, kind_of_machine
from core.engine.models.accelerator import CUDABackend, backend_of, default_device
from core.engine.models.precision import bfloat16_matmul, fast_arithmetic, forward_dtype
from core.settings import Settings
from secateur_wire.errors import InternalError


def test_the_fastest_device_there_is_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_memory_of_freed_tensors_goes_back_to_the_machine() -> None:
    """Also from between tensors that stay, which keep the allocator from shrinking its heap."""
    process, freed = psutil.Process(), [torch.ones(2**18) for _ in range(128)]
    stay = [each.clone() for each in freed[::32]]
    before = process.memory_info().rss
    freed.clear()
    backend_of(torch.device("cpu")).release_memory()
    assert before - process.memory_info().rss > 100 * 2**20
    assert all(bool((each == 1).all()) for each in stay)


@pytest.mark.parametrize(
    ("processor", "multiplies_bfloat16"),
    [
        ({"amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        ({"cpu_name": "Intel(R) Xeon(R) Processor", "avx512_bf16": True}, False),
    ],
)
def test_bfloat16_is_taken_where_it_is_multiplied_faster(
    processor: dict[str, bool | str], multiplies_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    device = torch.device("cpu")
    assert (forward_dtype("auto", torch.float32, device) is torch.bfloat16) == multiplies_bfloat16
    with bfloat16_matmul(device):
        assert torch.get_float32_matmul_precision() == ("medium" if multiplies_bfloat16 else "highest")
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("outputs", "inputs", "rows"), [(576, 576, 512), (100, 1031, 333), (1, 64, 7)])
def test_fast_products_of_float32_are_float32(outputs: int, inputs: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight_OI, X_NI = (torch.randn(size, inputs, generator=generator) for size in (outputs, rows))
    with fast_arithmetic(torch.device("cpu")):
        product_NO = X_NI @ weight_OI.T
    exact_NO = X_NI.double() @ weight_OI.double().T
    assert (product_NO - exact_NO).norm() <= 2e-6 * exact_NO.norm()
