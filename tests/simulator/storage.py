"""Memory of the simulated devices: a storage of a device is the CPU's memory under the device's name.

Memory is counted by storage, as CUDA's allocator does, so views share theirs. A storage of a device is freed when torch
frees it, which the weak reference to its Python object tells.
"""

import ctypes
import weakref
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from tests.simulator.devices import SimulatedDevice

_CPU_KERNELS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_OWN_DEVICE = 12
"""DLPack's number for devices that it does not know, torch's PrivateUse1."""


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device", _Device), ("ndim", ctypes.c_int32), ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

_memory: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
"""By the address of each storage that is not empty: the CPU's storage that owns it, and one that cannot be resized."""
_alive: set["_Allocation"] = set()
_pinned: set[int] = set()
"""Addresses of the storages of main memory that are pinned."""
_structures: list[object] = []
"""Memory that the capsules of empty tensors point to, for as long as the process lives."""


class _Allocation(weakref.ref[torch.UntypedStorage]):
    """The memory of one storage of a device, given back when the storage ends."""

    __slots__ = ("address", "device", "taken")

    def __new__(cls, storage: torch.UntypedStorage, *facts: object) -> "_Allocation":
        return super().__new__(cls, storage, _release)

    def __init__(self, storage: torch.UntypedStorage, device: SimulatedDevice, taken: int, address: int) -> None:
        super().__init__(storage, _release)
        self.device, self.taken, self.address = device, taken, address

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _release(allocation: "weakref.ref[torch.UntypedStorage]") -> None:
    assert isinstance(allocation, _Allocation)
    _alive.discard(allocation)
    _memory.pop(allocation.address, None)
    allocation.device.release(allocation.taken)


@cache
def _empty(index: int, dtype: torch.dtype, is_inference: bool) -> Tensor:
    """Return a tensor of a device without values, made in inference mode or outside of it.

    torch takes it over a DLPack capsule, the one way to have a tensor of such a device other than the first without
    compiled code.
    """
    shape = (ctypes.c_int64 * 1)(0)
    tensor = _Tensor(None, _Device(_OWN_DEVICE, index), 1, _DataType(1, 8, 1), shape, None, 0, None, None)
    _structures.append((tensor, shape))
    made: Tensor = torch._C._from_dlpack(_new_capsule(ctypes.addressof(tensor), b"dltensor", None))
    typed: Tensor = torch.ops.aten.view.dtype.redispatch(_CPU_KERNELS, made, dtype)
    return typed


def on_device(values: Tensor, device: SimulatedDevice) -> Tensor:
    """Return a tensor of the device on the memory of a CPU tensor; raises OutOfMemoryError where that is too much."""
    assert values.device.type == "cpu"
    if values.layout is not torch.strided:
        raise NotImplementedError(f"the simulated accelerator has no tensors of layout {values.layout}")
    memory = values.untyped_storage()
    address, nbytes = memory.data_ptr(), memory.nbytes()
    assert not nbytes or address not in _memory, "the memory is a storage of a device already"
    taken = device.allocate(nbytes)
    storage = torch._C._construct_storage_from_data_pointer(address, device.device, nbytes)
    _alive.add(_Allocation(storage, device, taken, address))
    if nbytes:
        _memory[address] = memory, torch._C._construct_storage_from_data_pointer(address, torch.device("cpu"), nbytes)
    empty = torch.ops.aten.alias.default.redispatch(
        _CPU_KERNELS, _empty(device.index, values.dtype, torch.is_inference_mode_enabled())
    )
    return set_storage(empty, storage, values.storage_offset(), values.shape, values.stride())


def pin(tensor: Tensor) -> Tensor:
    """Let the memory of a tensor of the CPU be pinned for as long as it lives, and return the tensor."""
    storage = tensor.untyped_storage()
    if storage.nbytes():
        _pinned.add(storage.data_ptr())
        weakref.finalize(storage, _pinned.discard, storage.data_ptr())
    return tensor


def is_pinned(tensor: Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in _pinned


def set_storage(
    tensor: Tensor, storage: torch.UntypedStorage, offset: int, shape: Sequence[int], strides: Sequence[int]
) -> Tensor:
    """Let a tensor of a device be of this shape, on this storage."""
    made: Tensor = torch.ops.aten.set_.source_Storage_storage_offset.redispatch(
        _CPU_KERNELS, tensor, storage, offset, shape, strides
    )
    return made


def beneath(tensor: Tensor) -> Tensor:
    """Return the CPU tensor that has the values of one of a device, on the same memory."""
    if tensor.is_conj() or tensor.is_neg():
        raise NotImplementedError("the simulated accelerator has no lazily conjugated or negated tensors")
    storage = tensor.untyped_storage()
    if not storage.nbytes():
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    memory = _memory[storage.data_ptr()][1]
    return torch.empty(0, dtype=tensor.dtype).set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())
