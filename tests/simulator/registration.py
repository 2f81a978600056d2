"""Registration of the simulated devices with torch, once in a process: importing this makes torch know `sim`."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.simulator import operators
from tests.simulator.devices import NAME, DeviceModule, Presence

_BACKEND = "PrivateUse1"

_OWN = {
    "_copy_from": operators.copy_from,
    "_index_put_impl_": operators.index_put,
    "convolution_backward_overrideable": operators.convolve_backward,
    "convolution_overrideable": operators.convolve,
    "index.Tensor": operators.index,
    "resize_": operators.resize,
}
_OUT_OF_SIGHT = ("empty.memory_format", "empty_strided")
"""Operators by which torch makes a tensor of numbers, past the modes that watch: then it finds no fallback."""
_LOWERED = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "conv1d", "conv2d", "_convolution")
"""Operators that CUDA's autocast computes in the lower precision; beside attention."""
_RAISED = (
    "softmax.int", "log_softmax.int", "layer_norm", "group_norm", "nll_loss", "nll_loss_nd", "cross_entropy_loss",
    "mse_loss", "kl_div", "exp", "log", "pow.Tensor_Scalar", "rsqrt", "cumsum", "sum", "sum.dim_IntList", "prod",
    "norm.Scalar",
)  # fmt: skip
"""Operators that CUDA's autocast computes in float32; those of its list that models here use."""


_casts: dict[int, tuple[Tensor, Tensor]] = {}
"""Trained weights in the lower precision, which CUDA's autocast makes once and keeps until its context ends."""


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return Presence.is_given

    def has_primary_context(self, dev_id: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


def _overload(name: str) -> Any:
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _cast(op: Any, is_lowered: bool, *arguments: Any, **keywords: Any) -> Any:
    """Run an operator under autocast, its floating-point operands in the precision of its list."""
    dtype = torch.get_autocast_dtype(NAME) if is_lowered else torch.float32

    def cast(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(cast(each) for each in value)
        if not operators.is_simulated(value) or not value.is_floating_point() or value.dtype in (dtype, torch.float64):
            return value
        is_weight = is_lowered and value.dtype is torch.float32 and value.requires_grad and value.is_leaf
        if not (is_weight and torch.is_autocast_cache_enabled()):
            return value.to(dtype)
        if id(value) not in _casts:
            _casts[id(value)] = value, value.to(dtype)
        return _casts[id(value)][1]

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        return op(*(cast(each) for each in arguments), **{name: cast(each) for name, each in keywords.items()})


def _clear_casts() -> None:
    _casts.clear()
    _clear_autocast_cache()


_clear_autocast_cache = torch.clear_autocast_cache
torch.clear_autocast_cache = _clear_casts


def _register() -> list[torch.library.Library]:
    _setup_privateuseone_for_python_backend(NAME, backend_module=DeviceModule(), hook=_Hooks())
    others, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    others.fallback(operators.run, _BACKEND)
    others.fallback(torch.library.fallthrough_kernel, f"Autocast{_BACKEND}")
    for name, kernel in _OWN.items():
        aten.impl(name, kernel, _BACKEND)
    for name in _OUT_OF_SIGHT:
        aten.impl(name, partial(operators.run, _overload(name)), _BACKEND)
    for key in (_BACKEND, f"Autograd{_BACKEND}"):
        aten.impl("scaled_dot_product_attention", operators.attend, key)
    # Where the CPU has a kernel of its own, that one is run: what other backends compose may round otherwise.
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in torch._C._dispatch_get_all_op_names():
        is_composed = any(has_kernel(name, f"CompositeExplicitAutograd{kind}") for kind in ("", "NonFunctional"))
        if name.startswith("aten::") and is_composed and has_kernel(name, "CPU"):
            short = name.removeprefix("aten::")
            if short not in _OWN:
                aten.impl(short, partial(operators.run, _overload(name)), _BACKEND)
    for name in (*_LOWERED, "scaled_dot_product_attention"):
        aten.impl(name, partial(_cast, _overload(name), True), f"Autocast{_BACKEND}")
    for name in _RAISED:
        aten.impl(name, partial(_cast, _overload(name), False), f"Autocast{_BACKEND}")
    return [others, aten]


LIBRARIES = _register()
"""Registrations, kept for as long as the process lives."""
