"""Traced run of a model: the inputs of each block's linear layers, and where their outputs go.

The model is built without weights (`build_traceable`): its values mean nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.engine.discovery.blocks import Blocks, hidden_states, run_model, sample_tokens
from core.engine.discovery.provenance import Addition, Place, Provenance, Running, TensorOrigin, TraceState
from core.engine.models.hooks import removed_after
from secateur_wire.errors import UnsupportedArchitecture

_AMONG_EXPERTS = re.compile(r"(?<![^.])[0-9]+(?![^.])")
ROUTER = "router: its outputs choose the experts"
EXPERT = "experts: which tokens one reads follows from the router"
STACKED = "experts: one parameter holds those of all"
NOT_RUN = "not run"
NO_LAYER = "a parameter of its own module, not a linear layer's"
CHANGED = "it does more than to apply its weight to what it reads"


@dataclass(frozen=True)
class TracedSublayer:
    """Part of a block that adds to the residual stream once: its linear layers, grouped by their input, in order.

    `outputs` are the layers whose outputs are added. `norm` reads the stream just before the addition, and the first
    group reads the norm's output. `attends`: the output layer reads the result of a softmax.
    """

    groups: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...]
    norm: str | None
    attends: bool


@dataclass(frozen=True)
class TracedBlock:
    """Block: names of its parameters, its linear layers by input, its sublayers, and the layers that are not pruned."""

    parameters: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    sublayers: tuple[TracedSublayer, ...]
    left_alone: dict[str, str]
    transposed: frozenset[bool]


@dataclass(frozen=True)
class Execution:
    """Result of one run: the blocks, and pairs of blocks where the second reads inner states of the first."""

    blocks: tuple[TracedBlock, ...]
    shared: frozenset[tuple[int, int]]


@dataclass
class _Call:
    """Call of a linear layer: its input, and the input's provenance."""

    name: str
    block: int
    place: Place
    given: TensorOrigin


class _TraceHooks:
    """Hooks that report to the provenance what runs; the calls of linear layers by event."""

    def __init__(self, model: PreTrainedModel, blocks: Blocks) -> None:
        modules = model.get_submodule(blocks.name)
        assert isinstance(modules, nn.ModuleList)
        self.modules = modules
        self.state = TraceState(
            {
                parameter.untyped_storage()._cdata: name
                for block in modules
                for name, parameter in block.named_parameters()
                if parameter.dim() > 1
            }
        )
        self.provenance = Provenance(self.state)
        self.calls: dict[int, _Call] = {}
        self.indirect: set[tuple[int, str]] = set()

    def handles(self) -> Iterator[RemovableHandle]:
        for index, block in enumerate(self.modules):
            yield block.register_forward_pre_hook(self._entering(index), with_kwargs=True)
            for name, module in block.named_modules():
                if isinstance(module, nn.Linear | Conv1D):
                    yield module.register_forward_pre_hook(self._before_layer)
                    yield module.register_forward_hook(self._after_layer(name))
                elif name and not any(isinstance(each, nn.Linear | Conv1D) for each in module.modules()):
                    yield module.register_forward_hook(self._after_other(name))
            yield block.register_forward_hook(self._leaving)

    def _entering(self, index: int) -> Any:
        def enter(block: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            hidden = hidden_states(arguments, keywords)
            assert hidden is not None
            self.state.block = index
            self.state.hidden_shape = hidden.shape
            self.provenance.set_origin(hidden, TensorOrigin(stream=self.provenance.next_state()))

        return enter

    def _leaving(self, block: nn.Module, arguments: object, output: object) -> None:
        self.state.block = None

    def _before_layer(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        if self.state.block is not None and isinstance(layer.weight, Tensor) and arguments:
            given = self.provenance.memory(arguments[0])
            self.state.running.append(Running(layer.weight.untyped_storage()._cdata, given))

    def _after_layer(self, name: str) -> Any:
        def finish(layer: nn.Module, arguments: tuple[Any, ...], output: object) -> None:
            if self.state.block is None or not arguments:
                return
            running = self.state.running.pop()
            if running.event is None or not running.is_plain or not isinstance(output, Tensor):
                self.indirect.add((self.state.block, name))
                return
            given = self.provenance.origin(arguments[0])
            place = self.provenance.place(arguments[0])
            self.calls[running.event] = _Call(name, self.state.block, place, given)
            self.provenance.set_origin(output, self.provenance.after(running.event, given, is_layer=True))

        return finish

    def _after_other(self, name: str) -> Any:
        def finish(module: nn.Module, arguments: tuple[Any, ...], output: object) -> None:
            if self.state.block is None or not arguments or not isinstance(arguments[0], Tensor):
                return
            stream = self.provenance.origin(arguments[0]).stream
            if stream is not None and isinstance(output, Tensor):
                given = self.provenance.origin(output)
                if given.stream is None and given.normed is None:
                    self.provenance.set_origin(output, replace(given, normed=(name, stream)))

        return finish


def trace(model: PreTrainedModel, blocks: Blocks) -> Execution:
    """Run a model once and return its traced blocks; raises UnsupportedArchitecture where the run has another form."""
    hooks = _TraceHooks(model, blocks)
    try:
        with removed_after(hooks.handles()), hooks.provenance:
            run_model(model, sample_tokens(model))
    except Exception as error:
        raise UnsupportedArchitecture(
            f"{model.config.model_type}: the model does not run under examination: {type(error).__name__}: "
            f"{str(error)[:300]}",
            param="model",
        ) from error
    return Execution(
        tuple(_block(hooks, index, block) for index, block in enumerate(hooks.modules)),
        frozenset(hooks.provenance.shared),
    )


def _block(hooks: _TraceHooks, index: int, block: nn.Module) -> TracedBlock:
    calls = {event: call for event, call in hooks.calls.items() if call.block == index}
    left_alone = _left_alone(hooks, index, block, calls)
    prunable = {event: call for event, call in calls.items() if call.name not in left_alone}
    kept = {call.name for call in prunable.values()}
    return TracedBlock(
        parameters=tuple(sorted(name for name, _ in block.named_parameters())),
        groups=_groups(prunable),
        sublayers=_sublayers(prunable, [each for each in hooks.provenance.additions if each.block == index]),
        left_alone=left_alone,
        transposed=frozenset(isinstance(module, Conv1D) for name, module in block.named_modules() if name in kept),
    )


def _left_alone(hooks: _TraceHooks, index: int, block: nn.Module, calls: dict[int, _Call]) -> dict[str, str]:
    """Return the layers of a block that are not pruned, each with the reason."""
    left_alone = {}
    products = {event: each for event, each in hooks.provenance.products.items() if each.block == index}
    for event, product in products.items():
        reason = STACKED if product.is_chosen else NO_LAYER
        if event not in calls:
            name = product.parameter.removesuffix(".weight")
            left_alone[name] = ROUTER if event in hooks.provenance.routers else reason
    experts = set()
    for event, call in calls.items():
        if event in hooks.provenance.routers:
            left_alone[call.name] = ROUTER
        elif call.given.is_chosen and _AMONG_EXPERTS.search(call.name):
            experts.add(_AMONG_EXPERTS.sub("{}", call.name))
    called = {call.name for call in calls.values()}
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and name not in left_alone:
            if _AMONG_EXPERTS.sub("{}", name) in experts:
                left_alone[name] = EXPERT
            elif (index, name) in hooks.indirect:
                left_alone[name] = CHANGED
            elif name not in called:
                left_alone[name] = NOT_RUN
    return left_alone


def _groups(calls: dict[int, _Call]) -> tuple[tuple[str, ...], ...]:
    """Return the names of layers grouped by input, in order; a layer with several inputs is alone."""
    places: dict[str, list[Place]] = {}
    for _, call in sorted(calls.items()):
        places.setdefault(call.name, []).append(call.place)
    groups: dict[object, list[str]] = {}
    for name, read in places.items():
        groups.setdefault(read[0] if len(set(read)) == 1 else name, []).append(name)
    return tuple(map(tuple, groups.values()))


def _sublayers(calls: dict[int, _Call], additions: list[Addition]) -> tuple[TracedSublayer, ...]:
    sublayers: list[TracedSublayer] = []
    seen: set[str] = set()
    for addition in additions:
        for layers, nearest, unchanged in _separate(addition):
            own = {event: calls[event] for event in layers if event in calls and calls[event].name not in seen}
            if not own:
                continue
            seen |= {call.name for call in own.values()}
            last = [event for event in nearest if event in own]
            outputs = [unchanged] if unchanged in own else last
            final = max(outputs, key=lambda event: (len(calls[event].given.layers), event), default=max(own))
            groups = _groups(own)
            first = next(call for _, call in sorted(own.items()))
            normed = first.given.normed
            is_alone = len(addition.terms) == 1 and unchanged == final
            reads_stream = is_alone and normed is not None and normed[1] == addition.stream
            sublayers.append(
                TracedSublayer(
                    groups=groups,
                    outputs=tuple(
                        own[event].name for event in sorted({*outputs, final}, key=lambda each: each == final)
                    ),
                    norm=normed[0] if reads_stream and normed is not None else None,
                    attends=own[final].given.is_attended,
                )
            )
    return tuple(sublayers)


def _separate(addition: Addition) -> list[tuple[frozenset[int], frozenset[int], int | None]]:
    """Return layers, nearest layers and unchanged output of each term; terms that share a layer are merged."""
    separate: list[tuple[frozenset[int], frozenset[int], int | None]] = []
    for term in sorted(addition.terms, key=lambda each: min(each.layers, default=0)):
        one = (term.layers, term.nearest, term.unchanged)
        for other in [each for each in separate if each[0] & one[0]]:
            separate.remove(other)
            one = (one[0] | other[0], one[1] | other[1], None)
        separate.append(one)
    return separate
