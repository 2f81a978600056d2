"""Device without values: the engine runs on it as on any other, and the bytes of its tensors are counted.

Its tensors are torch's of the meta device, where operators give shapes alone. The engine reads values on its way: flags
of solvers, counts, places, figures. Each read has an answer here. Fractional numbers are zero. Flags, whole numbers
and places of small tensors are computed in main memory, by the same operators. What depends on a large tensor is
declared: flags are true, numbers are zero, factorisations succeed, and half of the elements of a mask are set. Tensors
of fractional numbers are never equal. A read that is neither computed nor declared raises ValueNeeded, which names it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from core.device_kinds import DEVICE_KINDS, DeviceKind
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry
from core.engine.models.accelerator import BACKENDS, CPUBackend, DeviceBackend
from core.engine.models.folder import ModelFolder
from core.engine.models.tensors import DTYPES, TensorInPlace
from core.engine.models.tracing.live_bytes import FusedAttention, LiveBytes

META = torch.device("meta")
_CPU = torch.device("cpu")
_SMALL_STORAGE_BYTES = 2**19
"""Largest storage in bytes whose flags and whole numbers are computed."""
_aten = torch.ops.aten
_SOLVERS = ("linalg_", "cholesky", "lu_", "triangular_solve")
"""Prefixes of the names of solvers: their flags report success."""


class ValueNeeded(RuntimeError):
    """Value that a trace does not have."""


class FolderWithoutValues(ModelFolder):
    """Opened folder whose tensors are zeros, each with the memory of one element."""

    @classmethod
    def of(cls, folder: ModelFolder) -> "FolderWithoutValues":
        """Return a copy of a folder, of which only config and headers are read."""
        return cls(**{each.name: getattr(folder, each.name) for each in fields(ModelFolder)})

    def read(self, name: str) -> Tensor:
        entry = self.entry(name)
        return torch.zeros((), dtype=DTYPES[WEIGHT_DTYPES[entry.dtype]]).expand(entry.shape)

    def read_in_place(self, name: str) -> TensorInPlace:
        return TensorInPlace(self.read(name))

    def stored_entries(self, names: Iterable[str], dequantised: Path) -> list[TensorEntry]:
        """Return the entries as they are, because nobody saves them."""
        return [self.entry(name) for name in names]


class DeviceWithoutValues(DeviceBackend):
    """Meta device, with the facts of another kind of device."""

    kind: ClassVar[DeviceKind]

    @classmethod
    def is_available(cls) -> bool:
        return False

    def free_bytes(self) -> int:
        return 2**62

    def peak_bytes(self) -> None:
        return None

    def synchronise(self) -> None:
        pass

    def pinned(self, tensor: Tensor) -> Tensor:
        return tensor

    def copy_out(self, tensor: Tensor) -> Tensor:
        return tensor.to(_CPU)

    def prefers_bfloat16(self) -> bool:
        return self.kind.has_own_memory or CPUBackend(_CPU).prefers_bfloat16()

    def training(self, mixed_precision: str | None = None) -> Accelerator:
        """Raise ValueNeeded: accelerate has no such device."""
        raise ValueNeeded("training has to be done on a device with values")


@contextmanager
def device_without_values(kind: DeviceKind) -> Iterator["Account"]:
    """Let the meta device stand for a device of a kind, and yield the account of its memory."""
    DeviceWithoutValues.kind = replace(kind, name=META.type, files=None, control_file=None)
    DEVICE_KINDS[META.type], BACKENDS[META.type] = DeviceWithoutValues.kind, DeviceWithoutValues
    try:
        with FusedAttention(), Account() as account:
            yield account
    finally:
        del DEVICE_KINDS[META.type], BACKENDS[META.type]


@dataclass(frozen=True)
class AllocatedBytes:
    """Bytes held at a time; `states` are the part of them that a budget limits."""

    total: int
    states: int


Place = tuple[tuple[CodeType, int], ...]
"""Place in the engine's code: the functions that are running, and how far each one is."""


class Account(LiveBytes):
    """Mode in which operators run on the device without values.

    `most` is the most that was held at each place in the engine's code since `begin`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most: dict[Place, AllocatedBytes] = {}
        self._states: Callable[[], int] = int
        self._values: dict[int, torch.UntypedStorage] = {}
        self._known: dict[tuple[object, ...], tuple[tuple[torch.Size, tuple[int, ...]], torch.dtype]] = {}

    def begin(self, states: Callable[[], int]) -> None:
        """Forget what was held so far; `states` returns the bytes that a budget limits."""
        self._states = states
        self.most = {(): AllocatedBytes(self.current, states())}

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        keywords, facts = kwargs or {}, _facts(func)
        if facts.is_composed:  # inference mode hands composed operators over undivided
            with self:
                return func.decompose(*args, **keywords)
        given = [each for each in tree_leaves((args, keywords)) if isinstance(each, Tensor)]
        if not any(each.is_meta for each in given):
            answer = func(*args, **keywords)
            if keywords.get("device") == META:
                self._note(answer)
                if given:
                    self._write(answer, given[0])
            return answer
        if func is _aten._to_copy.default and keywords.get("device", META) != META:
            return self._in_main_memory(given[0], keywords.get("dtype") or given[0].dtype)
        if func is _aten.copy_.default and not given[1].is_meta:
            self._write(given[0], given[1])
            return given[0]
        if func is _aten.copy_.default and not given[0].is_meta:
            return given[0].copy_(self._in_main_memory(given[1], given[1].dtype))
        if (declare := _declaration(func, args)) is not None:
            answer = self._answer(func, declare, args, keywords, given)
        else:
            answer = self._result_shapes(func, args, keywords)
            if not facts.is_view and not facts.is_solver:
                self._compute(func, args, keywords, given, answer)
        self._note(answer)
        return answer

    def _result_shapes(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Return the result of an operator in shapes only, cached because torch is slow to compute it."""
        if not _facts(func).is_pure:
            return func(*args, **keywords)
        key = func, *map(_signature, args), *((name, _signature(each)) for name, each in keywords.items())
        known = self._known.get(key)
        if known is None:
            answer = func(*args, **keywords)
            if isinstance(answer, Tensor) and answer.is_meta:
                self._known[key] = (answer.shape, answer.stride()), answer.dtype
            return answer
        layout, dtype = known
        return torch.empty_strided(*layout, dtype=dtype, device=META)

    def _note(self, answer: Any) -> None:
        """Count the storages of an operator's result."""
        for each in tree_leaves(answer):
            if isinstance(each, Tensor) and each.is_meta:
                self._count_storage(each.untyped_storage())
        if self.moments:
            place = _place()
            if (known := self.most.get(place)) is None or known.total < self.current:
                self.most[place] = AllocatedBytes(self.current, self._states())
        self.moments.clear()

    def _end(self, key: int, nbytes: int) -> None:
        self._values.pop(key, None)
        super()._end(key, nbytes)

    def _value(self, tensor: Tensor) -> Tensor | None:
        """Return a main-memory tensor with the values of a small tensor of the device; None for a large one."""
        storage = tensor.untyped_storage()
        if storage.nbytes() > _SMALL_STORAGE_BYTES:
            return None
        if tensor.is_floating_point() or not storage.nbytes():
            return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        if storage._cdata not in self._values:  # none of its values were computed
            self._count_storage(storage)
            fill = torch.full((storage.nbytes(),), tensor.dtype is torch.bool, dtype=torch.uint8)
            self._values[storage._cdata] = fill.untyped_storage()
        value = torch.empty(0, dtype=tensor.dtype)
        return value.set_(self._values[storage._cdata], tensor.storage_offset(), tensor.shape, tensor.stride())

    def _write(self, tensor: Tensor, value: Tensor) -> None:
        """Set the values of a tensor of the device, if it can have any."""
        if not tensor.is_floating_point() and tensor.numel() and (written := self._value(tensor)) is not None:
            written.copy_(value)

    def _in_main_memory(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a copy of a tensor in main memory; declared values of a large one take the memory of one element."""
        value = self._value(tensor)
        if value is not None:
            return value.to(dtype, copy=True)
        return torch.full((), tensor.dtype is torch.bool, dtype=dtype).expand(tensor.shape)

    def _compute(
        self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any], given: Sequence[Tensor], answer: Any
    ) -> None:
        """Set the values of a result if it can have any and all operands have values."""
        results = [each for each in tree_leaves(answer) if isinstance(each, Tensor)]
        if all(each.is_floating_point() for each in results):
            return
        if any(each.is_meta and self._value(each) is None for each in (*given, *results)):
            return
        values = [each for each in tree_leaves(self._run(func, args, keywords)) if isinstance(each, Tensor)]
        operands = {id(each) for each in given}
        for each, value in zip(results, values, strict=True):
            if id(each) not in operands:  # any other one was written in place
                self._write(each, value)

    def _run(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Run an operator on the values of its operands."""

        def value(operand: Any) -> Any:
            if not isinstance(operand, Tensor):
                return _CPU if operand == META else operand
            low = self._value(operand) if operand.is_meta else operand
            return low.contiguous() if low is not None and low.is_floating_point() else low

        args, keywords = tree_map(value, (args, keywords))
        return func(*args, **keywords)

    def _answer(
        self, func: Any, declare: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any],
        given: Sequence[Tensor],
    ) -> Any:  # fmt: skip
        """Return the result of an operator that reads values: computed if its operands have values, else declared."""
        if declare is _declare_put and given[0].is_floating_point():
            return given[0]
        compares = declare is _declare_unequal and given[0].is_floating_point()  # zeros would be, of any model
        if compares or any(each.is_meta and self._value(each) is None for each in given):
            return declare(*args, **keywords)
        value = self._run(func, args, keywords)
        if declare is _declare_put or not isinstance(value, Tensor):
            return given[0] if declare is _declare_put else value
        answer = torch.empty_like(value, device=META)
        self._note(answer)
        self._write(answer, value)
        return answer


_ENGINE = "core."
"""Beginning of the names of modules whose functions tell places apart."""


def _place() -> Place:
    """Return the place in the engine's code from which an operator was called."""
    place: list[tuple[CodeType, int]] = []
    caller: FrameType | None = sys._getframe(2)
    while caller is not None:
        name = caller.f_globals.get("__name__", "")
        if name.startswith(_ENGINE) and name != __name__:
            place.append((caller.f_code, caller.f_lasti))
        caller = caller.f_back
    return tuple(place)


def _signature(operand: Any) -> object:
    """Return the facts of an operand that determine the shape of a result."""
    if isinstance(operand, Tensor):
        return operand.shape, operand.stride(), operand.dtype, operand.device
    return tuple(map(_signature, operand)) if isinstance(operand, list | tuple) else (type(operand), operand)


def _half(mask: Tensor) -> int:
    return max(1, mask.numel() // 2)


def _is_mask(index: object) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _declare_scalar(tensor: Tensor) -> Any:
    return torch.full((), tensor.dtype is torch.bool, dtype=tensor.dtype).item()


def _declare_places(mask: Tensor) -> Tensor:
    return torch.empty(mask.dim(), _half(mask), dtype=torch.int64, device=META).T


def _declare_selected(tensor: Tensor, mask: Tensor) -> Tensor:
    return tensor.new_empty(_half(mask))


def _declare_indexed(tensor: Tensor, indices: Sequence[Tensor | None]) -> Any:
    places: list[Tensor | None] = []
    for each in indices:
        if each is not None and _is_mask(each):
            places += torch.empty(each.dim(), _half(each), dtype=torch.int64, device=META).unbind()
        else:
            places.append(each)
    return _aten.index.Tensor(tensor, places)


def _declare_put(tensor: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    return tensor


def _declare_unequal(one: Tensor, another: Tensor) -> bool:
    return False


_READS: dict[Any, Callable[..., Any]] = {
    _aten._local_scalar_dense.default: _declare_scalar,
    _aten.equal.default: _declare_unequal,
    _aten.nonzero.default: _declare_places,
    _aten.masked_select.default: _declare_selected,
}
"""Operators whose result, or its shape, depends on values, and their declaration."""
_READS_BY_MASK: dict[Any, Callable[..., Any]] = {
    _aten.index.Tensor: _declare_indexed,
    _aten.index_put_.default: _declare_put,
    _aten._index_put_impl_.default: _declare_put,
}
"""The same for operators where one of the indices is a mask."""
_UNDECLARED = {"_unique2", "unique_dim", "unique_consecutive", "bincount", "histc", "repeat_interleave"}
"""Operators without a declaration of their result."""


def _declaration(func: Any, args: tuple[Any, ...]) -> Callable[..., Any] | None:
    """Return the declaration of an operator's result; None for an operator that reads no values."""
    if func in _READS_BY_MASK:
        return _READS_BY_MASK[func] if any(map(_is_mask, args[1])) else None
    if _facts(func).name not in _UNDECLARED:
        return _READS.get(func)

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise ValueNeeded(f"the answer of {func} depends on the values of a large tensor")

    return refuse


@dataclass(frozen=True)
class _Facts:
    name: str
    is_composed: bool
    is_view: bool
    is_solver: bool
    is_pure: bool
    """True where no result shares memory with an operand."""


@cache
def _facts(func: Any) -> _Facts:
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    shared = [each.alias_info for each in schema.returns if each.alias_info is not None]
    is_view = any(not each.is_write for each in shared)
    return _Facts(name, func._can_decompose(), is_view, name.startswith(_SOLVERS), not shared)
