"""How calibration tokens go through a block while it is pruned: in flight, or in the papers' two passes."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from core.catalogue.families import Family
from core.models.skeleton import call_block
from core.pruning.lockstep import pause, run_in_lockstep
from core.pruning.statistics import InputStatistic
from core.pruning.streams import Stream


@dataclass(frozen=True)
class InputGroup:
    """Linear layers of a block that read the same input tensor, by name relative to the block.

    `stream_norm` reads the residual stream that their output is added to; None where it is added to none.
    """

    linears: tuple[str, ...]
    stream_norm: str | None = None

    @property
    def first(self) -> str:
        return self.linears[0]


def input_groups(family: Family, prefix: str, prunable: Container[str]) -> list[InputGroup]:
    """The input groups of the block of that name, less the linear layers that are not `prunable`, by full name."""
    norms: dict[str, str] = {}
    if family.stream_norms is not None:
        norms = dict(zip((family.attention_output, family.channel_reader), family.stream_norms, strict=True))
    kept = [tuple(name for name in group if f"{prefix}.{name}" in prunable) for group in family.inputs]
    return [InputGroup(names, norms.get(names[0])) for names in kept if names]


@dataclass(frozen=True)
class DenseTwin:
    """The dense block and the stream of the same tokens through the dense model, which goes ahead of the pruned one."""

    block: nn.Module
    stream: Stream


@dataclass(frozen=True)
class Arrival:
    """What reaches a group's linear layers, [sequences, time, in_features], and the residual stream that their output
    will be added to, [sequences, time, out_features], where it is and is asked for."""

    inputs: Tensor
    stream: Tensor | None

    def after(self, dense: "Arrival | None") -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What a statistic takes in, given what reached the dense block's."""
        if dense is None:
            return self.inputs, None, None
        if self.stream is None or dense.stream is None:
            return self.inputs, dense.inputs, None
        return self.inputs, dense.inputs, dense.stream.float() - self.stream.float()


OnArrival = Callable[[InputGroup, Arrival], None]
PruneGroup = Callable[[InputGroup, InputStatistic], None]


@contextmanager
def _arrivals(
    block: nn.Module, groups: Sequence[InputGroup], on_arrival: OnArrival, *, with_streams: bool
) -> Iterator[None]:
    """Call `on_arrival` as a tensor reaches a group's first linear layer; check that the others read the same one."""
    inputs: dict[InputGroup, tuple[int, tuple[int, ...]]] = {}
    streams: dict[tuple[greenlet, str], Tensor] = {}  # of each of the forwards that run side by side

    def norm(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            streams[getcurrent(), name] = arguments[0]

        return hook

    def first(group: InputGroup) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            stream = None if group.stream_norm is None else streams.pop((getcurrent(), group.stream_norm), None)
            on_arrival(group, Arrival(arguments[0], stream))
            inputs[group] = (arguments[0].data_ptr(), tuple(arguments[0].shape))

        return hook

    def other(group: InputGroup) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            same = inputs.get(group) == (arguments[0].data_ptr(), tuple(arguments[0].shape))
            assert same, f"{group.linears} do not read one tensor: the family table is wrong"

        return hook

    norms = {group.stream_norm for group in groups if group.stream_norm is not None} if with_streams else set()
    handles = [block.get_submodule(name).register_forward_pre_hook(norm(name)) for name in sorted(norms)]
    handles += [
        block.get_submodule(name).register_forward_pre_hook((other if place else first)(group))
        for group in groups
        for place, name in enumerate(group.linears)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def prune_in_flight(
    block: nn.Module,
    index: int,
    stream: Stream,
    groups: Sequence[InputGroup],
    new_statistic: Callable[[], InputStatistic],
    prune_group: PruneGroup,
    dense: DenseTwin | None = None,
) -> None:
    """Run every micro-batch through block `index` once, pruning each group when all tokens have reached it.

    The forward then goes on through the pruned weights: true-sequential propagation for one forward per block. With
    `dense` every micro-batch goes through the dense block just ahead, and statistics see both inputs.
    """
    statistics: dict[InputGroup, InputStatistic] = {}
    by_name = {group.first: group for group in groups}
    ahead: dict[InputGroup, Arrival] = {}

    def arrive_dense(group: InputGroup, arrival: Arrival) -> None:
        ahead[group] = arrival
        pause(group.first)

    def arrive(group: InputGroup, arrival: Arrival) -> None:
        statistics.setdefault(group, new_statistic()).update(*arrival.after(ahead.pop(group, None)))
        pause(group.first)

    def at_barrier(name: str) -> None:
        group = by_name[name]
        prune_group(group, statistics.pop(group))

    lanes = [(stream, block)] if dense is None else [(dense.stream, dense.block), (stream, block)]

    def forward(lane: int, batch: int) -> Callable[[], Tensor]:
        through, module = lanes[lane]
        return lambda: call_block(module, through.hidden(batch), through.arguments(index))

    def store(number: int, hidden: Tensor) -> None:
        batch, lane = divmod(number, len(lanes))
        lanes[lane][0].store(batch, hidden)

    forwards = [forward(lane, batch) for batch in range(len(stream)) for lane in range(len(lanes))]
    with _both_arrivals(block, groups, arrive, dense, arrive_dense):
        run_in_lockstep(forwards, at_barrier, store)
    for through, _ in lanes:
        through.step()


@contextmanager
def _both_arrivals(
    block: nn.Module,
    groups: Sequence[InputGroup],
    on_arrival: OnArrival,
    dense: DenseTwin | None,
    on_dense_arrival: OnArrival,
) -> Iterator[None]:
    """Those at the block, and at the dense one where there is one: only then is the stream asked for."""
    with ExitStack() as stack:
        if dense is not None:
            stack.enter_context(_arrivals(dense.block, groups, on_dense_arrival, with_streams=True))
        stack.enter_context(_arrivals(block, groups, on_arrival, with_streams=dense is not None))
        yield


def collect(
    block: nn.Module,
    index: int,
    stream: Stream,
    groups: Sequence[InputGroup],
    new_statistic: Callable[[], InputStatistic],
    dense: DenseTwin | None = None,
) -> dict[InputGroup, InputStatistic]:
    """Statistics of every group from the block as it is; the streams stay where they were."""
    statistics: dict[InputGroup, InputStatistic] = {}
    ahead: dict[InputGroup, Arrival] = {}

    def arrive(group: InputGroup, arrival: Arrival) -> None:
        statistics.setdefault(group, new_statistic()).update(*arrival.after(ahead.pop(group, None)))

    with _both_arrivals(block, groups, arrive, dense, ahead.__setitem__):
        for batch, hidden in stream.batches():
            if dense is not None:
                call_block(dense.block, dense.stream.hidden(batch), dense.stream.arguments(index))
            call_block(block, hidden, stream.arguments(index))
    return statistics


def prune_two_pass(
    block: nn.Module,
    index: int,
    stream: Stream,
    groups: Sequence[InputGroup],
    new_statistic: Callable[[], InputStatistic],
    prune_group: PruneGroup,
    dense: DenseTwin | None = None,
) -> None:
    """The papers' walk: all statistics from the block's dense forward, prune, run the pruned block again."""
    for group, statistic in collect(block, index, stream, groups, new_statistic, dense).items():
        prune_group(group, statistic)
    stream.advance(block, index)
    if dense is not None:
        dense.stream.advance(dense.block, index)
