"""Products with weights that are one element, expanded: computed from sums, without room for the weight."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten


def is_constant(tensor: Tensor) -> bool:
    """Return True for a matrix or batch of matrices all of whose elements are one element of memory."""
    return tensor.dim() > 1 and not any(tensor.stride()) and tensor.numel() > 1


def _constant_product(left: Tensor, right: Tensor) -> Tensor | None:
    """Return left @ right where one of them is constant, else None."""
    shape = (*left.shape[:-1], right.shape[-1])
    if left.shape[-1] != right.shape[-2]:
        return None  # the operation says what does not fit
    if is_constant(right):
        value = right[(0,) * right.dim()]
        return (left.sum(-1, keepdim=True) * value).expand(shape).contiguous()
    if is_constant(left):
        value = left[(0,) * left.dim()]
        return (right.sum(-2, keepdim=True) * value).expand(shape).contiguous()
    return None


class ConstantWeights(TorchDispatchMode):
    """Mode in which a product with a constant weight costs a sum."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        packet = function.overloadpacket
        if packet in (_aten.mm, _aten.bmm) and (product := _constant_product(*arguments[:2])) is not None:
            return product
        if packet in (_aten.addmm, _aten.baddbmm) and (product := _constant_product(*arguments[1:3])) is not None:
            named = keywords or {}
            return named.get("beta", 1) * arguments[0] + named.get("alpha", 1) * product
        return function(*arguments, **(keywords or {}))
