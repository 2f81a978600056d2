"""Propagation of calibration tokens through a block that is being pruned: in flight, or in the papers' two passes."""

from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from greenlet import greenlet
from torch import Tensor, nn

from core.engine.models.experts import RoutedTokens
from core.engine.models.hooks import removed_after
from core.engine.models.streamed import call_block
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.streams.lockstep import current_forward, run_in_lockstep, wait_at_barrier
from core.engine.pruning.streams.stream import Stream


@dataclass(frozen=True)
class InputGroup:
    """Linear layers of a block that read the same input tensor, by name relative to the block."""

    linears: tuple[str, ...]

    @property
    def first(self) -> str:
        return self.linears[0]


def input_groups(inputs: Iterable[tuple[str, ...]], prunable: Container[str], prefix: str = "") -> list[InputGroup]:
    """Return the input groups of a block, without the linear layers that are not in `prunable`.

    `inputs` are the groups of the family, by name relative to the block; names in `prunable` have the `prefix` before.
    """
    kept = [tuple(name for name in group if f"{prefix}{name}" in prunable) for group in inputs]
    return [InputGroup(names) for names in kept if names]


@dataclass(frozen=True)
class DenseReference:
    """The dense block with its number, and the stream of the same tokens through the dense model.

    That stream is ahead of the pruned one. Both blocks name their modules alike; their widths may differ.

    `added_to_stream` are linear layers whose outputs are added to the residual stream, each with the norm that reads
    the stream before: their target is the dense model's residual stream after them, or where `aims` has another stream
    of the same tokens for one, that.
    """

    block: nn.Module
    stream: Stream
    index: int
    added_to_stream: Mapping[str, str] = field(default_factory=dict)
    aims: Mapping[str, Stream] = field(default_factory=dict)


@dataclass
class ExpertBarrier:
    """The experts of a block, at which all tokens wait: what has arrived by micro-batch, and what to do with all of it.

    `dense` are the hidden states of the same tokens, [tokens, hidden_size], at the dense model's experts, if it runs.
    """

    module: str
    prune: Callable[["ExpertBarrier"], None]
    tokens: list[RoutedTokens] = field(default_factory=list)
    dense: list[Tensor] = field(default_factory=list)

    def arriving(self, wait: Callable[[str], None], *, is_dense: bool) -> Callable[..., None]:
        """Return a hook of the module that notes the tokens it is given, and waits."""

        def arrive(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None, f"{self.module} is not called with tokens, experts and gates"
            if is_dense:
                self.dense.append(tokens.hidden_NH)
            else:
                self.tokens.append(tokens)
            wait(self.module)

        return arrive

    def release(self) -> None:
        """Prune what has all its tokens, and let go of these."""
        self.prune(self)
        self.tokens, self.dense = [], []


OnArrival = Callable[[InputGroup, Tensor], None]
PruneGroup = Callable[[InputGroup, InputStatistic], None]


@contextmanager
def arrivals(block: nn.Module, groups: Sequence[InputGroup], on_arrival: OnArrival) -> Iterator[None]:
    """Call `on_arrival` when a tensor reaches a group's first linear layer; check that the others read the same one.

    Of a group that attention and FFN share, the others come when other forwards have been at the first one since.
    """
    inputs: dict[tuple[greenlet, InputGroup], tuple[int, tuple[int, ...]]] = {}

    def first(group: InputGroup) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            on_arrival(group, arguments[0])
            inputs[current_forward(), group] = (arguments[0].data_ptr(), tuple(arguments[0].shape))

        return hook

    def other(group: InputGroup) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            same = inputs.get((current_forward(), group)) == (arguments[0].data_ptr(), tuple(arguments[0].shape))
            assert same, f"{group.linears} do not read one tensor: the architecture is wrong"

        return hook

    handles = [
        block.get_submodule(name).register_forward_pre_hook((other if place else first)(group))
        for group in groups
        for place, name in enumerate(group.linears)
    ]
    with removed_after(handles):
        yield


@contextmanager
def _products(block: nn.Module, linears: Iterable[str], on_product: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `on_product` with the output of each of these linear layers, without its bias."""

    def hook(name: str) -> Callable[..., None]:
        def without_bias(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            bias = module.bias
            assert bias is None or isinstance(bias, Tensor)
            on_product(name, output if bias is None else output - bias)

        return without_bias

    handles = [block.get_submodule(name).register_forward_hook(hook(name)) for name in linears]
    with removed_after(handles):
        yield


@contextmanager
def _passing(block: nn.Module, norms: Iterable[str], on_stream: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `on_stream` with the residual stream as it enters each of these norms."""

    def hook(name: str) -> Callable[..., None]:
        return lambda module, arguments: on_stream(name, arguments[0])

    handles = [block.get_submodule(name).register_forward_pre_hook(hook(name)) for name in norms]
    with removed_after(handles):
        yield


@contextmanager
def _gathering(
    block: nn.Module,
    groups: Sequence[InputGroup],
    new_statistic: Callable[[], InputStatistic],
    dense: DenseReference | None,
    wait: Callable[[str], None],
    experts: ExpertBarrier | None,
) -> Iterator[dict[InputGroup, InputStatistic]]:
    """Yield statistics that grow as micro-batches go through the block; `wait` is called when one reaches a group.

    With `dense`, each micro-batch goes through that block before this one, at least from one `wait` to the next, and
    before the next micro-batch. The dense block provides the inputs that a group's layers read there or, where their
    outputs are added to the residual stream, those outputs.
    """
    statistics: dict[InputGroup, InputStatistic] = {}
    ahead: dict[str, Tensor] = {}
    stream_ahead: dict[str, Tensor] = {}
    streams: defaultdict[str, deque[tuple[Tensor, Tensor]]] = defaultdict(deque)
    added = {} if dense is None else dense.added_to_stream
    aims = {} if dense is None else {linear: stream.batches() for linear, stream in dense.aims.items()}
    norms = {group.first: added[group.first] for group in groups if group.first in added}

    def arrive_dense(first: str, values: Tensor) -> None:
        ahead[first] = values
        wait(first)

    def pass_norm(norm: str, stream: Tensor) -> None:  # both are the blocks' own residuals, kept alive by them as well
        streams[norm].append((stream_ahead.pop(norm), stream))

    def missing(group: InputGroup) -> Tensor:
        """Return the group's dense output and what the stream lacks of the dense one before, or of one it aims at."""
        (dense_stream, stream), output = streams[norms[group.first]].popleft(), ahead.pop(group.first)
        if group.first not in aims:
            return output.float() + (dense_stream.float() - stream.float())
        _, aim = next(aims[group.first])
        lacking = aim.float() - stream.float()
        bias = block.get_submodule(group.first).bias
        assert bias is None or isinstance(bias, Tensor)
        return lacking if bias is None else lacking - bias.float()

    def arrive(group: InputGroup, inputs: Tensor) -> None:
        statistic = statistics.setdefault(group, new_statistic())
        if group.first in norms:
            statistic.update(inputs, target=missing(group))
        else:
            statistic.update(inputs, ahead.pop(group.first, None))
        wait(group.first)  # with nothing made for the statistic

    with ExitStack() as hooks:
        hooks.enter_context(arrivals(block, groups, arrive))
        if dense is not None:
            others = [group for group in groups if group.first not in norms]
            hooks.enter_context(arrivals(dense.block, others, lambda group, inputs: arrive_dense(group.first, inputs)))
            hooks.enter_context(_products(dense.block, norms, arrive_dense))
            hooks.enter_context(_passing(dense.block, norms.values(), stream_ahead.__setitem__))
            hooks.enter_context(_passing(block, norms.values(), pass_norm))
        if experts is not None:
            for each, is_dense in ((block, False), *(() if dense is None else ((dense.block, True),))):
                hook = experts.arriving(wait, is_dense=is_dense)
                module = each.get_submodule(experts.module)
                hooks.enter_context(removed_after([module.register_forward_pre_hook(hook, with_kwargs=True)]))
        yield statistics


def prune_in_flight(
    block: nn.Module,
    index: int,
    stream: Stream,
    groups: Sequence[InputGroup],
    new_statistic: Callable[[], InputStatistic],
    prune_group: PruneGroup,
    dense: DenseReference | None = None,
    experts: ExpertBarrier | None = None,
) -> None:
    """Run every micro-batch through block `index` once, pruning each group when all tokens have reached it.

    The forward then goes on through the pruned weights: true-sequential propagation for one forward per block. With
    `dense` every micro-batch goes through the dense block just ahead, and statistics see both inputs.
    """
    by_name = {group.first: group for group in groups}
    lanes = [(stream, block, index)]
    if dense is not None:
        lanes.insert(0, (dense.stream, dense.block, dense.index))

    def forward(lane: int, batch: int) -> Callable[[], Tensor]:
        through, module, number = lanes[lane]
        return lambda: call_block(module, through.hidden(batch), through.arguments(number, batch))

    def store(number: int, hidden: Tensor) -> None:
        batch, lane = divmod(number, len(lanes))
        lanes[lane][0].store(batch, hidden)

    forwards = [forward(lane, batch) for batch in range(len(stream)) for lane in range(len(lanes))]
    with _gathering(block, groups, new_statistic, dense, wait_at_barrier, experts) as statistics:

        def at_barrier(name: str) -> None:
            if experts is not None and name == experts.module:
                experts.release()
                return
            group = by_name[name]
            prune_group(group, statistics.pop(group))

        run_in_lockstep(forwards, at_barrier, store)
    for through, _, _ in lanes:
        through.step()


def collect(
    block: nn.Module,
    index: int,
    stream: Stream,
    groups: Sequence[InputGroup],
    new_statistic: Callable[[], InputStatistic],
    dense: DenseReference | None = None,
    experts: ExpertBarrier | None = None,
) -> dict[InputGroup, InputStatistic]:
    """Return statistics of every group from the block as it is; the streams do not advance."""
    with _gathering(block, groups, new_statistic, dense, lambda name: None, experts) as statistics:
        for batch, hidden in stream.batches():
            if dense is not None:
                call_block(dense.block, dense.stream.hidden(batch), dense.stream.arguments(dense.index, batch))
            call_block(block, hidden, stream.arguments(index, batch))
    return statistics


def prune_two_pass(
    block: nn.Module,
    index: int,
    stream: Stream,
    groups: Sequence[InputGroup],
    new_statistic: Callable[[], InputStatistic],
    prune_group: PruneGroup,
    dense: DenseReference | None = None,
    experts: ExpertBarrier | None = None,
) -> None:
    """Prune in two passes, as the papers do: all statistics from the dense forward, then the pruned block again."""
    for group, statistic in collect(block, index, stream, groups, new_statistic, dense, experts).items():
        prune_group(group, statistic)
    if experts is not None:
        experts.release()
    stream.advance(block, index)
    if dense is not None:
        dense.stream.advance(dense.block, dense.index)
