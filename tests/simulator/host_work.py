"""Work of models that is left to the CPU while a device is to do it, which equal results say nothing of.

A mode of torch sees the operators that the product calls, and none of those beneath the simulated devices.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core.engine.models.accelerator import DeviceBackend
from tests.simulator.devices import NAME
from tests.simulator.operators import tensors_in

_OF_MODELS = {
    "mm", "addmm", "bmm", "baddbmm", "convolution", "embedding", "_softmax", "_log_softmax", "native_layer_norm",
    "native_batch_norm", "_native_batch_norm_legit", "nll_loss_forward", "multinomial", "linalg_cholesky_ex",
    "_scaled_dot_product_flash_attention_for_cpu",
}  # fmt: skip
_LEAST_ELEMENTS = 256
"""Elements of an operator's largest operand from which on it is work: small models' weights have more."""


class _Watch(TorchDispatchMode):
    """Mode that counts the operators of models that the CPU is given."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled here, and a guard against that costs every operator."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func._schema.name.removeprefix("aten::") in _OF_MODELS:
            operands = list(tensors_in(args))
            is_work = max(each.numel() for each in operands) >= _LEAST_ELEMENTS
            if is_work and all(each.is_cpu for each in operands):
                self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def at_work_on(device: torch.device) -> Iterator[None]:
    """Require that the operators of models inside the context run on a simulated device; nothing of another one."""
    if device.type != NAME:
        yield
        return
    DeviceBackend(torch.device("cpu")).prefers_onednn()  # multiplies once in a process, to try the processor
    with _Watch() as watch:
        yield
    assert not watch.found, f"left to the CPU: {watch.found}"
