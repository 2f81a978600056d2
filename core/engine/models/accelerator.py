"""Interface to the device a model runs on: the only module with torch's differences between kinds of devices.

`core.device_kinds` has the facts that need no torch.
"""

import ctypes
import errno
from collections.abc import Callable, Mapping
from functools import cache
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor

from core.device_kinds import CPU, CUDA, DeviceKind, device_kind
from core.engine.models.memory_limit import memory_left

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's `mallopt`: the size of a tensor, and of free memory, that is given back at once."""
_KEPT_BYTES = 2**30
_TRIED_SIZE = 512
_ROUNDING = 1e-5
"""Relative error of a product, far above that of float32 and far below that of factors in bfloat16."""


def _cpu_capabilities() -> Mapping[str, object]:
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def _is_amd_with_avx512() -> bool:
    capabilities = _cpu_capabilities()
    return str(capabilities.get("cpu_name", "")).startswith("AMD") and bool(capabilities.get("avx512_bf16"))


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function that gives free pages to the machine; None with another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep freed memory of any size in the process; do nothing with another C library.

    Otherwise it gives every tensor of 32 MiB and more back to the machine, which fills all its pages with zeros when
    the next one takes them.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(parameter, _KEPT_BYTES)


@cache
def _onednn_rounds_factors() -> bool:
    """Return True if torch's precision `medium` rounds the factors of a product of float32 matrices to bfloat16."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(_TRIED_SIZE, _TRIED_SIZE, generator=generator) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    product = left @ right
    torch.set_float32_matmul_precision(before)
    exact = left.double() @ right.double()
    return float((product - exact).norm() / exact.norm()) > _ROUNDING


class DeviceBackend:
    """Device, which may or may not be the current one of its kind.

    This class is the CPU, whose memory is the machine's and all of whose work is synchronous; a class of another kind
    overrides what is different there.
    """

    kind: ClassVar[DeviceKind] = CPU

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @classmethod
    def is_available(cls) -> bool:
        """Return True if this machine has a device of the kind, and torch can use it."""
        return True

    def free_bytes(self) -> int:
        """Return the bytes that are free on the device."""
        return memory_left()

    def peak_bytes(self) -> int | None:
        """Return the peak bytes of tensors since the process began; None if the device does not count them."""
        return None

    def synchronise(self) -> None:
        """Wait until all work on the device is complete."""

    def pinned(self, tensor: Tensor) -> Tensor:
        """Return a tensor of main memory in pinned memory, from which the device copies asynchronously."""
        return tensor

    def copy_out(self, tensor: Tensor) -> Tensor:
        """Return a device's tensor in main memory; its values are valid after `synchronise`."""
        return tensor

    def keep_memory(self) -> None:
        """Keep the memory of freed tensors in the process for the next ones, until `release_memory`."""
        _keep_freed_memory()

    def release_memory(self) -> None:
        """Return the memory of freed tensors to the machine, where the allocator keeps it in the process."""
        if (trim := _malloc_trim()) is not None:
            trim(0)

    def prefers_bfloat16(self) -> bool:
        """Return True if the device multiplies bfloat16 faster than float32.

        A CPU does if it has matrix units, or is an AMD one with AVX-512's bfloat16 instructions. There bfloat16 takes
        half the time of float32; on Intel's processors without matrix units it takes twice the time.
        """
        capabilities = _cpu_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("bf16")) or _is_amd_with_avx512()

    def prefers_onednn(self) -> bool:
        """Return True if oneDNN multiplies float32 matrices faster than torch's usual library, and rounds no factor.

        It does on an AMD CPU with AVX-512's bfloat16 instructions, where MKL takes twice the time. Torch uses oneDNN
        where products may round their factors to bfloat16. It rounds none on such a CPU, which is tried once.
        """
        return _is_amd_with_avx512() and not _onednn_rounds_factors()

    def training(self, mixed_precision: str | None = None) -> Accelerator:
        """Return accelerate's object for training on the device, which becomes the current one of its kind."""
        return Accelerator(cpu=True, mixed_precision=mixed_precision)


class CUDABackend(DeviceBackend):
    """CUDA device. Its allocator keeps freed memory itself."""

    kind = CUDA

    @classmethod
    def is_available(cls) -> bool:
        return torch.cuda.is_available()

    def free_bytes(self) -> int:
        return int(torch.cuda.mem_get_info(self.device)[0])

    def peak_bytes(self) -> int:
        return int(torch.cuda.max_memory_allocated(self.device))

    def synchronise(self) -> None:
        torch.cuda.synchronize(self.device)

    def pinned(self, tensor: Tensor) -> Tensor:
        return self._new_pinned(tensor).copy_(tensor)

    def copy_out(self, tensor: Tensor) -> Tensor:
        return self._new_pinned(tensor).copy_(tensor, non_blocking=True)

    def _new_pinned(self, like: Tensor) -> Tensor:
        with torch.cuda.device(self.device):  # a new thread's current device is the first one
            return torch.empty_like(like, device="cpu", pin_memory=True)

    def keep_memory(self) -> None:
        return

    def release_memory(self) -> None:
        return

    def prefers_bfloat16(self) -> bool:
        with torch.cuda.device(self.device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))

    def prefers_onednn(self) -> bool:
        return False

    def training(self, mixed_precision: str | None = None) -> Accelerator:
        if self.device.index is not None:  # accelerate uses the current device
            torch.cuda.set_device(self.device)
        return Accelerator(cpu=False, mixed_precision=mixed_precision)


_MEMORY_MESSAGES = (
    *("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED"),
    *("Cannot allocate memory", "could not create a primitive", "could not create a memory", "bad allocation"),
    *("bad_alloc", "Failed to allocate memory", "can't start new thread"),
)
"""Messages of errors without their own class.

Torch's CPU allocator, CUDA and its libraries, the kernel (where a file is mapped), oneDNN, C++, onnxruntime and Python
(where a thread's stack does not fit) raise them.
"""
_OTHER_CLASSES = ("SafetensorError", "RuntimeException", "Fail")
"""Names of classes with such messages beside RuntimeError: of safetensors, and of onnxruntime."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Return True for an error that reports too little memory on the machine or a device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_one = isinstance(error, RuntimeError) or type(error).__name__ in _OTHER_CLASSES
    return is_one and any(words in str(error) for words in _MEMORY_MESSAGES)


BACKENDS: dict[str, type[DeviceBackend]] = {backend.kind.name: backend for backend in (DeviceBackend, CUDABackend)}


def backend_of(device: torch.device) -> DeviceBackend:
    """Return the interface to a device; raises InternalError for one of an unknown kind."""
    return BACKENDS[device_kind(device.type).name](device)


def to_main_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in main memory. A device's tensors are copied together, with one wait for all."""
    backends = {each.device: backend_of(each.device) for each in tensors.values()}
    copies = {name: backends[each.device].copy_out(each) for name, each in tensors.items()}
    for backend in backends.values():
        backend.synchronise()
    return copies


def default_device() -> torch.device:
    """Return the current device of the fastest kind that is available."""
    kinds = [backend.kind for backend in BACKENDS.values() if backend.is_available()]
    return torch.device(max(kinds, key=lambda kind: kind.operations_per_second).name)
