"""Provenance of tensors while a model runs: the linear layers that each comes from, tracked by its memory.

Views share the memory, and with it the provenance, of their base. All memory is kept until the run ends, so that no
address is used twice. Products with weights that are one expanded element are computed from sums, without memory for
the weight.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten


def is_constant(tensor: Tensor) -> bool:
    """Return True for a matrix or batch of matrices whose elements are all one element of memory."""
    return tensor.dim() > 1 and not any(tensor.stride()) and tensor.numel() > 1


def _constant_product(left: Tensor, right: Tensor) -> Tensor | None:
    """Return left @ right where one of them is constant, else None."""
    shape = (*left.shape[:-1], right.shape[-1])
    if left.shape[-1] != right.shape[-2]:
        return None  # the operation itself then raises the error
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
        packet = function.overloadpacket
        if packet in (_aten.mm, _aten.bmm) and (product := _constant_product(*arguments[:2])) is not None:
            return product
        if packet in (_aten.addmm, _aten.baddbmm) and (product := _constant_product(*arguments[1:3])) is not None:
            named = keywords or {}
            return named.get("beta", 1) * arguments[0] + named.get("alpha", 1) * product
        return function(*arguments, **(keywords or {}))


_WITHOUT_MEMORY: Final = {
    _aten.zeros_like, _aten.ones_like, _aten.empty_like, _aten.full_like, _aten.rand_like, _aten.randn_like,
    _aten.new_zeros, _aten.new_ones, _aten.new_empty, _aten.new_full, _aten.new_empty_strided,
}  # fmt: skip
_COPIES: Final = {_aten.clone, _aten._to_copy, _aten.contiguous}
_CHOICES: Final = {_aten.topk, _aten.sort, _aten.argsort, _aten.argmax, _aten.max}
_ATTENTION: Final = {
    _aten._softmax, _aten._safe_softmax, _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_attention_math, _aten._scaled_dot_product_attention_math_for_mps,
}  # fmt: skip
_PRODUCTS: Final = {_aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten.mv, _aten.addmv, _aten.dot}
_LINEAR: Final = {*_PRODUCTS, *_COPIES, _aten.add, _aten.add_}
Memory: TypeAlias = int
Place: TypeAlias = tuple[Memory, int, int]
"""Tensor that a layer reads: a memory, the offset in it and the number of elements."""


@dataclass(frozen=True)
class Term:
    """Summand of an addition to the residual stream.

    `layers` are the layers it depends on, back to the stream; `nearest` those without another layer in between.
    `unchanged` is the layer whose output it is, if nothing changed it.
    """

    nearest: frozenset[int]
    layers: frozenset[int]
    unchanged: int | None = None


@dataclass(frozen=True)
class TensorOrigin:
    """Provenance of a tensor.

    `layers` are the layers it depends on since the last addition to the residual stream; `nearest` those without
    another layer in between. `elsewhere` are blocks whose inner states it depends on. `stream` is the number of the
    state of the residual stream that it is. `normed` is a module that computed it from such a state. `terms` are its
    summands.
    """

    layers: frozenset[int] = frozenset()
    nearest: frozenset[int] = frozenset()
    elsewhere: frozenset[int] = frozenset()
    is_chosen: bool = False
    is_attended: bool = False
    unchanged: int | None = None
    stream: int | None = None
    normed: tuple[str, int] | None = None
    terms: tuple[Term, ...] = ()

    def summands(self) -> tuple[Term, ...]:
        """Return its terms; a tensor that is not a sum is one term."""
        return self.terms or (Term(self.nearest, self.layers, self.unchanged),)


@dataclass(frozen=True)
class Addition:
    """Addition to the residual stream: its terms, and the state of the stream before it."""

    block: int
    stream: int | None
    terms: tuple[Term, ...]


@dataclass
class Product:
    """Product with a parameter, named within its block. `is_chosen`: the other factor comes from a selection."""

    block: int
    parameter: str
    is_chosen: bool


@dataclass
class Running:
    """Module with a matrix while it runs: its input, the event of their product, and if it does nothing else.

    Only the addition of a bias is allowed besides.
    """

    weight: Memory
    given: Memory
    event: int | None = None
    is_plain: bool = True


@dataclass
class TraceState:
    """State of a traced run, as reported by the hooks of modules."""

    weights: dict[Memory, str]
    block: int | None = None
    hidden_shape: torch.Size = field(default_factory=torch.Size)
    widths: dict[int, int] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)


class Provenance(ConstantWeights):
    """Mode that tracks the origin of all tensors.

    Events are products with parameters of blocks, numbered in order.
    """

    def __init__(self, state: TraceState) -> None:
        super().__init__()
        self.state = state
        self.events = 0
        self.states = 0
        self.additions: list[Addition] = []
        self.products: dict[int, Product] = {}
        self.routers: set[int] = set()
        self.shared: set[tuple[int, int]] = set()
        self._origins: dict[Memory, TensorOrigin] = {}
        self._aliases: dict[Memory, Memory] = {}
        self._held: list[object] = []

    def origin(self, tensor: Tensor) -> TensorOrigin:
        return self._origins.get(self.memory(tensor), TensorOrigin())

    def memory(self, tensor: Tensor) -> Memory:
        """Return the number of a tensor's memory; a whole copy has the number of its original."""
        number = _memory(tensor)
        return self._aliases.get(number, number)

    def place(self, tensor: Tensor) -> Place:
        """Return the place of a tensor in its memory."""
        return self.memory(tensor), int(tensor.storage_offset()), tensor.numel()

    def set_origin(self, tensor: Tensor, origin: TensorOrigin) -> None:
        self._keep_memory(tensor)
        self._origins[self.memory(tensor)] = origin

    def next_state(self) -> int:
        """Return the number of a new state of the residual stream."""
        self.states += 1
        return self.states

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation, and record the origins of its results."""
        result = super().__torch_dispatch__(function, types, arguments, keywords)
        inputs = [each for each in tree_leaves((arguments, keywords or {})) if isinstance(each, Tensor)]
        outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if self.state.block is not None:
            self._note(function, inputs, outputs)
        return result

    def _note(self, function: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        packet = function.overloadpacket
        given = {_memory(each) for each in inputs}
        changes = function._schema.is_mutable
        outputs = [each for each in outputs if changes or _memory(each) not in given]
        if self.state.running and outputs and packet not in _LINEAR:
            self.state.running[-1].is_plain = False
        if packet in _WITHOUT_MEMORY or not outputs:
            for each in outputs:
                self._keep_memory(each)
            return
        if packet in _COPIES and inputs[0].numel() * inputs[0].element_size() == inputs[0].untyped_storage().nbytes():
            self._keep_memory(outputs[0])
            self._aliases[_memory(outputs[0])] = self.memory(inputs[0])
            return
        origin = _combined([self.origin(each) for each in inputs])
        assert self.state.block is not None
        self.shared |= {(other, self.state.block) for other in origin.elsewhere - {self.state.block}}
        if packet in _PRODUCTS:
            origin = self._product(inputs, outputs[0], origin)
        elif packet in _CHOICES:
            self._record_router(inputs[0], origin)
            origin = replace(origin, is_chosen=True)
        elif packet in _ATTENTION:
            origin = replace(origin, is_attended=True)
        elif packet in (_aten.add, _aten.add_) and len(inputs) == 2:
            origin = self._sum(inputs[0], inputs[1], origin)
        for each in outputs:
            self.set_origin(each, origin)

    def _product(self, inputs: list[Tensor], output: Tensor, origin: TensorOrigin) -> TensorOrigin:
        """Return the origin of a product; a product with a parameter is an event."""
        left, right = inputs[-2:]
        for weight, other in ((right, left), (left, right)):
            memory = _memory(weight)
            if memory in self.state.weights:
                assert self.state.block is not None
                self.events += 1
                event = self.events
                self.products[event] = Product(self.state.block, self.state.weights[memory], origin.is_chosen)
                self.state.widths[event] = output.shape[-1]
                running = self.state.running[-1] if self.state.running else None
                if running is not None and (running.weight, running.given) == (memory, self.memory(other)):
                    running.event = event
                return self.after(event, origin)
        return origin

    def _record_router(self, scores: Tensor, origin: TensorOrigin) -> None:
        """Record that a layer is a router, because a selection is made among its outputs."""
        if len(origin.nearest) == 1:
            (event,) = origin.nearest
            if self.state.widths.get(event) == scores.shape[-1]:
                self.routers.add(event)

    def _sum(self, one: Tensor, other: Tensor, mixed: TensorOrigin) -> TensorOrigin:
        """Return the origin of a sum; with one summand that depends on no layer, it adds to the residual stream."""
        size = self.state.hidden_shape.numel()
        width = self.state.hidden_shape[-1]
        if any(each.numel() != size or each.shape[-1] != width for each in (one, other)):
            return mixed
        left, right = self.origin(one), self.origin(other)
        if left.layers and right.layers:
            return replace(mixed, terms=left.summands() + right.summands())
        if not left.layers and not right.layers:
            return mixed
        base, added = (right, left) if left.layers else (left, right)
        assert self.state.block is not None
        self.additions.append(Addition(self.state.block, base.stream, added.summands()))
        return TensorOrigin(elsewhere=frozenset({self.state.block}), stream=self.next_state())

    def after(self, event: int, given: TensorOrigin, *, is_layer: bool = False) -> TensorOrigin:
        """Return the origin of an event's output from that of its input; `is_layer`: a linear layer gave the output."""
        return replace(
            given,
            layers=given.layers | {event},
            nearest=frozenset({event}),
            elsewhere=given.elsewhere | {self.products[event].block},
            is_attended=False,
            unchanged=event if is_layer else None,
            stream=None,
            normed=None,
            terms=(),
        )

    def _keep_memory(self, tensor: Tensor) -> None:
        self._held.append(tensor.untyped_storage())


def _combined(origins: list[TensorOrigin]) -> TensorOrigin:
    """Return the origin of a tensor that is computed from tensors with these origins."""
    return TensorOrigin(
        layers=frozenset[int]().union(*(each.layers for each in origins)),
        nearest=frozenset[int]().union(*(each.nearest for each in origins)),
        elsewhere=frozenset[int]().union(*(each.elsewhere for each in origins)),
        is_chosen=any(each.is_chosen for each in origins),
        is_attended=any(each.is_attended for each in origins),
    )


def _memory(tensor: Tensor) -> Memory:
    return int(tensor.untyped_storage()._cdata)
