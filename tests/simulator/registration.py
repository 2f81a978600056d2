"""Registration of the simulated devices with torch, once in a process: importing this makes torch know `sim`."""

from functools import partial
from typing import Any

import torch
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
}
_OUT_OF_SIGHT = ("empty.memory_format", "empty_strided")
"""Operators by which torch makes a tensor of numbers, past the modes that watch: then it finds no fallback."""


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
    return [others, aten]


LIBRARIES = _register()
"""Registrations, kept for as long as the process lives."""
