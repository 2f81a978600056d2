"""Bytes that tensors without values would take on a device: every storage, from its creation to its end."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ROUNDING = 512
"""Multiple of bytes of an allocation in CUDA's allocator."""


def allocated(nbytes: int) -> int:
    return -(-nbytes // _ROUNDING) * _ROUNDING


class LiveBytes(TorchDispatchMode):
    """Mode that counts the bytes of new storages on the meta device; storages from before do not count.

    `moments` are the bytes in use after each operator that created a storage, `current` those in use now. Views share
    their base's storage.
    """

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        TorchDispatchMode.__init__(self)
        self.current = 0
        self.moments: list[int] = []
        self._existing = {each.untyped_storage()._cdata: each for each in existing}
        self._alive: dict[int, object] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled here, and a guard against that would slow every operator."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        for each in tree_leaves(answer):
            if isinstance(each, Tensor) and each.is_meta:
                self._count_storage(each.untyped_storage())
        return answer

    def _count_storage(self, storage: torch.UntypedStorage) -> None:
        key, nbytes = storage._cdata, allocated(storage.nbytes())
        if key in self._alive or key in self._existing or not nbytes:
            return
        self._alive[key] = weakref.finalize(storage, self._end, key, nbytes)
        self.current += nbytes
        self.moments.append(self.current)

    def _end(self, key: int, nbytes: int) -> None:
        del self._alive[key]
        self.current -= nbytes

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Exclude from the count all that happens inside the context."""
        moments, self.moments = self.moments, []
        try:
            yield
        finally:
            self.moments = moments


class FusedAttention(TorchFunctionMode):
    """Mode in which attention is one operator that keeps no scores, as on real devices.

    The meta device would compose it of other operators.
    """

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        if function is functional.scaled_dot_product_attention:
            return _attend(*arguments, **(keywords or {}))
        return function(*arguments, **(keywords or {}))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if not query.is_meta:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -torch.inf)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output: Tensor = fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return output
