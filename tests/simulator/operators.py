"""Operators of the simulated devices: each is the CPU's own, on the memory beneath.

`run` takes every operator that reaches a device. What has no kernel of the CPU's by that name, what moves values
between devices, and what may change an operand's size has its own function.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from tests.simulator.devices import NAME, SimulatedDevice, device_of
from tests.simulator.storage import beneath, is_pinned, on_device, set_storage

_CPU = torch.device("cpu")
_CPU_KERNELS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_aten = torch.ops.aten

_WAITED_FOR = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "equal", "histc",
}  # fmt: skip
"""Operators that answer the program, or whose result's shape depends on values: it waits until the device is done."""

_TAKE_SCALARS = {"masked_fill", "masked_fill_", "index_fill", "index_fill_", "where", "fill_"}
"""Operators that are not pointwise and take a tensor of the CPU without dimensions beside those of a device."""

_ALLOCATE = {"empty", "empty_strided", "resize_", "set_"}
"""Operators that launch nothing."""


def is_simulated(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def tensors_in(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_mapped(each, change) for each in value])
    return value


def _on_several(places: Iterable[object], op: object) -> RuntimeError:
    found = " and ".join(sorted({str(place) for place in places}))
    return RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {found}! ({op})"
    )


@dataclass(frozen=True)
class _Facts:
    """Facts of an operator: whether it returns a view, launches anything, makes the program wait, and so on."""

    is_view: bool
    is_launched: bool
    is_waited_for: str | None
    takes_scalars: bool
    generator: int | None
    """The place of its generator among its arguments."""
    written: tuple[int | str, ...]
    """The places among its arguments, or names, of what it writes to."""


@cache
def _facts(op: Any) -> _Facts:
    schema = op._schema
    name = schema.name.removeprefix("aten::")
    places = [place for place, each in enumerate(schema.arguments) if each.name == "generator"]
    return _Facts(
        is_view=any(each.alias_info is not None and not each.alias_info.is_write for each in schema.returns),
        is_launched=name not in _ALLOCATE,
        is_waited_for=name if name in _WAITED_FOR else None,
        takes_scalars=torch.Tag.pointwise in op.tags or name in _TAKE_SCALARS,
        generator=places[0] if places else None,
        written=tuple(
            each.name if each.kwarg_only else place
            for place, each in enumerate(schema.arguments)
            if each.alias_info is not None and each.alias_info.is_write
        ),
    )


def _place(op: Any, given: Iterable[Tensor], requested: object = None) -> SimulatedDevice:
    """Return the device an operator runs on; raises RuntimeError where its operands are on several."""
    takes_scalars = _facts(op).takes_scalars
    places = {each.device for each in given if not (takes_scalars and each.device == _CPU and not each.dim())}
    if isinstance(requested, torch.device) and requested.type == NAME:
        places.add(device_of(requested).device)
    if len(places) != 1:
        raise _on_several(places, op)
    return device_of(places.pop())


def run(op: Any, *arguments: Any, **keywords: Any) -> Any:
    """Run an operator of a device, whichever it is."""
    facts = _facts(op)
    device = _place(op, tensors_in((*arguments, *keywords.values())), keywords.get("device"))
    if facts.is_view:
        return op.redispatch(_CPU_KERNELS, *arguments, **keywords)  # shapes alone, of any device
    for written in facts.written:  # not even a scalar of the CPU: a device does not write there
        target = keywords.get(written) if isinstance(written, str) else arguments[written]
        if any(each.device == _CPU for each in tensors_in([target])):
            raise _on_several([_CPU, device.device], op)
    if facts.is_launched:
        device.launch()
    if facts.is_waited_for is not None:
        device.synchronise(facts.is_waited_for)
    if "device" in keywords:
        keywords["device"] = _CPU
    if facts.generator is not None:
        requested = arguments[facts.generator] if facts.generator < len(arguments) else keywords.get("generator")
        if requested is not None:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{requested.device.type}'")
        arguments, keywords["generator"] = arguments[: facts.generator], device.generator
    return _compute(op, device, arguments, keywords)


def _compute(op: Any, device: SimulatedDevice, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Compute with the CPU's values of tensors; what is new, and outputs that were given, are the device's."""
    lowered: dict[int, tuple[Tensor, Tensor]] = {}

    def lower(value: Tensor) -> Tensor:
        if value.device == _CPU:
            return value
        if id(value) not in lowered:
            lowered[id(value)] = value, beneath(value)
        return lowered[id(value)][1]

    answer = op(*_mapped(arguments, lower), **{name: _mapped(each, lower) for name, each in keywords.items()})
    originals = {id(value): original for original, value in lowered.values()}
    for original, value in lowered.values():
        if value.shape != original.shape or value.stride() != original.stride():
            take_shape(original, value, device)

    def lift(value: Tensor) -> Tensor:
        return originals[id(value)] if id(value) in originals else new(value, device)

    return _mapped(answer, lift)


def new(value: Tensor, device: SimulatedDevice) -> Tensor:
    """Return the tensor of a device that takes over what an operator of the CPU has made."""
    spare = value.untyped_storage().nbytes() - value.nbytes
    return on_device(value.clone() if value.storage_offset() or spare > value.nbytes else value, device)


def take_shape(target: Tensor, value: Tensor, device: SimulatedDevice) -> None:
    """Give an output the size of its result: in its own memory if that is there, else in new memory."""
    if value.untyped_storage().data_ptr() == target.untyped_storage().data_ptr() and value.numel():
        storage = target.untyped_storage()
    else:
        storage = on_device(value, device).untyped_storage()
    set_storage(target, storage, value.storage_offset(), value.shape, value.stride())


def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy between the host and a device, two devices, or within one."""
    device = device_of((source if is_simulated(source) else target).device)
    device.launch()
    if not is_simulated(source):
        device.counts.bytes_to_device += source.nbytes
        device.counts.pinned_bytes_to_device += source.nbytes * is_pinned(source)
        beneath(target).copy_(source)
    elif not is_simulated(target):
        if non_blocking and not is_pinned(target):
            raise NotImplementedError("a copy to memory that is not pinned is one the program waits for")
        if not non_blocking:
            device.synchronise("copy to host")
        device.counts.bytes_to_host += source.nbytes
        device.counts.pinned_bytes_to_host += source.nbytes * is_pinned(target)
        if non_blocking:
            device.arrive_later(partial(target.copy_, beneath(source).clone()))
            target.view(torch.uint8).fill_(255)  # until then there is nothing to read
        else:
            target.copy_(beneath(source))
    else:
        if source.device != target.device:
            device_of(target.device).launch()
        beneath(target).copy_(beneath(source))
    return target


def index(source: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    device = _indexed(source)
    return new(_aten.index.Tensor(beneath(source), _indices(indices, device)), device)


def index_put(
    target: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False, unsafe: bool = False
) -> Tensor:
    device = _indexed(target)
    if values.device != target.device and (is_simulated(values) or values.dim()):
        raise _on_several([values.device, target.device], "index_put")
    is_fill = not accumulate and not values.dim() and all(map(_is_mask, indices))
    places = _indices(indices, device, waits=not is_fill)  # to fill a mask with one value CUDA needs no places
    lowered = beneath(values) if is_simulated(values) else values
    _aten._index_put_impl_(beneath(target), places, lowered, accumulate, unsafe)
    return target


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _indexed(tensor: Tensor) -> SimulatedDevice:
    if not is_simulated(tensor):
        raise RuntimeError(
            f"indices should be either on cpu or on the same device as the indexed tensor ({tensor.device})"
        )
    device = device_of(tensor.device)
    device.launch()
    return device


def _indices(indices: Sequence[Tensor | None], device: SimulatedDevice, *, waits: bool = True) -> list[Tensor | None]:
    """Return the CPU's values of indices. As with CUDA these may be on the CPU; of a mask the places are looked for."""
    values: list[Tensor | None] = []
    for each in indices:
        if waits and _is_mask(each):
            device.synchronise("mask as index")
        if each is None or is_simulated(each):
            if each is not None and each.device != device.device:
                raise _on_several([each.device, device.device], "index")
            values.append(None if each is None else beneath(each))
        else:
            device.counts.bytes_to_device += each.nbytes
            values.append(each)
    return values


def convolve(*arguments: Any) -> Any:
    device = _launched(_aten.convolution.default, arguments)
    return _compute(_aten.convolution.default, device, arguments, {})


def convolve_backward(gradient: Tensor, values: Tensor, weight: Tensor, *settings: Any) -> Any:
    op, bias = _aten.convolution_backward.default, [weight.shape[0]]
    device = _launched(op, (gradient, values, weight))
    return _compute(op, device, (gradient, values, weight, bias, *settings), {})


def _launched(op: Any, arguments: Sequence[Any]) -> SimulatedDevice:
    device = _place(op, tensors_in(arguments))
    device.launch()
    return device


def attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Attend by the operator that the CPU's own code chooses, from above autograd."""
    given = [query, key, value, *([] if attn_mask is None else [attn_mask])]
    _place(_aten.scaled_dot_product_attention.default, given)
    settings = {"scale": scale, "enable_gqa": enable_gqa}
    with torch.no_grad():
        low = [beneath(each.detach()) for each in given]
        mask = low[3] if attn_mask is not None else None
        chosen = _aten._fused_sdp_choice(*low[:3], mask, dropout_p, is_causal, **settings)
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -torch.inf)
    if chosen == torch.nn.attention.SDPBackend.FLASH_ATTENTION.value:
        flash = _aten._scaled_dot_product_flash_attention_for_cpu
        return flash(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    composed = _aten._scaled_dot_product_attention_math
    return composed(query, key, value, attn_mask, dropout_p, is_causal, **settings)[0]
