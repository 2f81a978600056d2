"""The product's interface to the simulated devices, and the context in which the product has them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import offload
from torch import Tensor, nn
from torch._C import _ImperativeEngine
from torch.autograd.variable import Variable

import tests.simulator.registration  # noqa: F401
from core.device_kinds import CPU, CUDA, DEVICE_KINDS, DeviceKind
from core.engine.models.accelerator import BACKENDS, DeviceBackend
from tests.simulator.devices import DEVICES, NAME, Presence, SimulatedDevice, device_of
from tests.simulator.storage import pin

LIKE_CUDA = replace(CUDA, name=NAME, files=None, control_file=None)
"""CUDA's facts: the product takes every choice as it does there."""
LIKE_THE_CPU = replace(
    CPU, name=NAME, operations_per_second=CUDA.operations_per_second, context_bytes=CUDA.context_bytes
)
"""The CPU's facts on a device with memory of its own: the product computes the CPU's numbers."""

PYTHONS_LOOKS_FOR_GARBAGE = 700, 10, 10
"""What Python begins with: the peak of a device's memory depends on how long garbage stays."""


class _OneDevice(Accelerator):
    """Training in one process, as strict as one of several: NCCL reads the memory of the device alone."""

    def reduce(self, tensor: Tensor, reduction: str = "sum", scale: float = 1.0) -> Tensor:
        if tensor.device != self.device:
            raise RuntimeError(f"No backend type associated with device type {tensor.device.type}")
        reduced: Tensor = super().reduce(tensor, reduction, scale)
        return reduced


class SimulatorBackend(DeviceBackend):
    """A simulated device."""

    kind = LIKE_CUDA

    @classmethod
    def is_available(cls) -> bool:
        return Presence.is_given

    @property
    def _state(self) -> SimulatedDevice:
        return device_of(self.device)

    def free_bytes(self) -> int:
        return self._state.free

    def peak_bytes(self) -> int:
        return self._state.peak

    def synchronise(self) -> None:
        self._state.synchronise("synchronise")

    def pinned(self, tensor: Tensor) -> Tensor:
        return pin(torch.empty_like(tensor)).copy_(tensor)

    def copy_out(self, tensor: Tensor) -> Tensor:
        assert tensor.device == self._state.device
        return pin(torch.empty_like(tensor, device="cpu")).copy_(tensor, non_blocking=True)

    def prefers_bfloat16(self) -> bool:
        if self.kind is LIKE_CUDA:
            return True
        return DeviceBackend(torch.device("cpu")).prefers_bfloat16()

    def prefers_onednn(self) -> bool:
        return self.kind is not LIKE_CUDA and DeviceBackend(torch.device("cpu")).prefers_onednn()

    def training(self, mixed_precision: str | None = None) -> Accelerator:
        AcceleratorState._reset_state(reset_partial_state=True)  # one device and arithmetic a process; here several
        accelerator = _OneDevice(cpu=True, mixed_precision=mixed_precision)
        PartialState().device = AcceleratorState().device = self._state.device
        return accelerator


class _CallersThread(_ImperativeEngine):
    """torch's engine of backward passes, all in the thread of the caller: it starts one for the first device alone.

    To say so once is not enough, as the end of inference mode allows several threads again.
    """

    def run_backward(self, *arguments: Any, **keywords: Any) -> Any:
        with torch.autograd.set_multithreading_enabled(False):
            return super().run_backward(*arguments, **keywords)


_engine = Variable._execution_engine
_move = nn.Module.to
_safe_open = offload.safe_open
_copy: Any = Tensor.__deepcopy__


def _moved(module: nn.Module, *arguments: Any, **keywords: Any) -> nn.Module:
    """Move a module as `to` does, and leave one alone that is there: a parameter in use cannot be swapped."""
    device, dtype, *_ = torch._C._nn._parse_to(*arguments, **keywords)
    tensors = [*module.parameters(), *module.buffers()]
    if dtype is None and device is not None and all(each.device == device for each in tensors):
        return module
    return _move(module, *arguments, **keywords)


def _copied(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """Copy a tensor for `copy.deepcopy`, which torch does by its storage: of a simulated one that has no address."""
    if self.device.type != NAME:
        return _copy(self, memo)
    if id(self) not in memo:
        memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
    copied: Tensor = memo[id(self)]
    return copied


def _safe_open_on_the_host(file: str, framework: str, device: Any = "cpu") -> Any:
    """Open a file whose tensors go to a device; safetensors knows none of these, for which accelerate asks twice."""
    if str(device).startswith(NAME):
        raise TypeError(f"safetensors does not read tensors to {device}")
    return _safe_open(file, framework=framework, device=device)


@contextmanager
def simulate(kind: DeviceKind = LIKE_THE_CPU) -> Iterator[tuple[SimulatedDevice, ...]]:
    """Let this machine have two simulated devices of such facts, without faults and with nothing counted."""
    SimulatorBackend.kind = kind
    DEVICE_KINDS[NAME], BACKENDS[NAME] = kind, SimulatorBackend
    gc.collect()  # what an earlier program left is not this one's
    gc.freeze()  # what is left is of libraries: the program's own collections need not go through it
    looks = gc.get_threshold()
    gc.set_threshold(*PYTHONS_LOOKS_FOR_GARBAGE)
    for each in DEVICES:
        each.reset()
    Presence.is_given, Presence.current = True, 0
    # A module that moves to CUDA keeps its parameters, which others may share; on a device that torch does not know it
    # would get new ones, unless they are swapped.
    torch.__future__.set_swap_module_params_on_conversion(True)
    nn.Module.to = _moved
    offload.safe_open = _safe_open_on_the_host
    Tensor.__deepcopy__ = _copied
    Variable._execution_engine = _CallersThread()
    try:
        yield DEVICES
    finally:
        gc.set_threshold(*looks)
        Variable._execution_engine = _engine
        torch.__future__.set_swap_module_params_on_conversion(False)
        nn.Module.to = _move
        offload.safe_open = _safe_open
        Tensor.__deepcopy__ = _copy
        Presence.is_given, Presence.current = False, 0
        del DEVICE_KINDS[NAME], BACKENDS[NAME]
        AcceleratorState._reset_state(reset_partial_state=True)
        for each in DEVICES:
            each.reset()
