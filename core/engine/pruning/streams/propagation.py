"""Propagation of calibration tokens through a block that is being pruned: in flight, or in the papers' two passes."""

from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from greenlet import greenlet
from torch import Tensor, nn

from core.engine.datasets.counted_tokens import rows_at
from core.engine.models.accelerator import backend_of
from core.engine.models.experts import RoutedTokens
from core.engine.models.hooks import removed_after
from core.engine.models.streamed import call_block
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.streams.lockstep import current_forward, run_in_lockstep, wait_at_barrier
from core.engine.pruning.streams.stream import Stream


@dataclass(frozen=True)
class InputGroup:
    """Linear layers of a block that read the same input tensor, by name within the block."""

    linears: tuple[str, ...]

    @property
    def first(self) -> str:
        return self.linears[0]


def input_groups(inputs: Iterable[tuple[str, ...]], prunable: Container[str], prefix: str = "") -> list[InputGroup]:
    """Return the input groups of a block with their linear layers in `prunable`.

    `inputs` are the groups of the family, by name within the block; names in `prunable` begin with `prefix`.
    """
    kept = [tuple(name for name in group if f"{prefix}{name}" in prunable) for group in inputs]
    return [InputGroup(names) for names in kept if names]


@dataclass(frozen=True)
class DenseReference:
    """Dense block with its number, and the stream of the same tokens through the dense model.

    That stream is ahead of the pruned one. Both blocks have the same module names; their widths may differ.

    `added_to_stream` are linear layers whose outputs are added to the residual stream, each with the norm that reads
    the stream before. Their target is the dense model's residual stream after them, or another stream of the same
    tokens from `target_streams`.
    """

    block: nn.Module
    stream: Stream
    index: int
    added_to_stream: Mapping[str, str] = field(default_factory=dict)
    target_streams: Mapping[str, Stream] = field(default_factory=dict)

    def is_run_for(self, groups: Iterable[InputGroup]) -> bool:
        """Return True if the dense block must run, because a group has no target stream."""
        return any(group.first not in self.target_streams for group in groups)


@dataclass
class ExpertBarrier:
    """Experts of a block, where all tokens wait: the tokens arrived so far, and the function that prunes with all.

    Tokens that do not count are left out. `dense` are the hidden states of the same tokens, [tokens, hidden_size], at
    the dense model's experts, if it runs.
    """

    module: str
    prune: Callable[["ExpertBarrier"], None]
    tokens: list[RoutedTokens] = field(default_factory=list)
    dense: list[Tensor] = field(default_factory=list)

    def arriving(
        self, wait: Callable[[str], None], places: Iterable[Tensor | None], *, is_dense: bool
    ) -> Callable[..., None]:
        """Return a hook of the module that records its tokens at the `places` of each micro-batch, and waits."""
        of_batch = iter(places)

        def arrive(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None, f"{self.module} is not called with tokens, experts and gates"
            places_N = next(of_batch)
            if is_dense:
                self.dense.append(rows_at(tokens.hidden_NH, places_N))
            else:
                self.tokens.append(tokens.at(places_N))
            wait(self.module)

        return arrive

    def release(self) -> None:
        """Prune with all tokens, and free them."""
        self.prune(self)
        self.tokens, self.dense = [], []


OnArrival = Callable[[InputGroup, Tensor], None]
PruneGroup = Callable[[InputGroup, InputStatistic], None]


@contextmanager
def arrivals(block: nn.Module, groups: Sequence[InputGroup], on_arrival: OnArrival) -> Iterator[None]:
    """Call `on_arrival` when a tensor reaches a group's first linear layer; check that the others read the same one.

    In a group that attention and FFN share, other forwards may reach the first layer before this one reaches the
    others.
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
def _hooked_products(
    block: nn.Module, linears: Iterable[str], on_product: Callable[[str, Tensor], None]
) -> Iterator[None]:
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
def _hooked_norms(block: nn.Module, norms: Iterable[str], on_stream: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `on_stream` with the residual stream as it enters each of these norms."""

    def hook(name: str) -> Callable[..., None]:
        return lambda module, arguments: on_stream(name, arguments[0])

    handles = [block.get_submodule(name).register_forward_pre_hook(hook(name)) for name in norms]
    with removed_after(handles):
        yield


class _Gathering:
    """Statistics of a block's inputs, by group, which grow as micro-batches go through it, one after the other.

    `wait` is called when a micro-batch reaches a group. Where the dense model runs too, each micro-batch goes through
    the dense block first, at least from one `wait` to the next. The dense block provides the inputs of a group's layers
    or, where their outputs are added to the residual stream, those outputs.
    """

    def __init__(self, propagation: "BlockPropagation", wait: Callable[[str], None]) -> None:
        dense = propagation.dense
        self._dense = propagation.running_dense
        self.statistics: dict[InputGroup, InputStatistic] = {}
        self._propagation = propagation
        self._wait = wait
        self._next_places = iter(propagation.stream.places)
        self._places: dict[greenlet, Tensor | None] = {}
        self._ahead: dict[str, Tensor] = {}
        self._stream_ahead: dict[str, Tensor] = {}
        self._streams: defaultdict[str, deque[tuple[Tensor | None, Tensor]]] = defaultdict(deque)
        self._target_batches = (
            {} if dense is None else {linear: stream.batches() for linear, stream in dense.target_streams.items()}
        )
        added = {} if dense is None else dense.added_to_stream
        self._norms = {group.first: added[group.first] for group in propagation.groups if group.first in added}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Register the hooks of the blocks, and remove them at the end."""
        block, dense, experts = self._propagation.block, self._dense, self._propagation.experts
        groups, norms = self._propagation.groups, self._norms
        with ExitStack() as hooks:
            hooks.enter_context(removed_after([block.register_forward_pre_hook(self._begin)]))
            hooks.enter_context(arrivals(block, groups, self._arrive))
            if dense is not None:
                others = [group for group in groups if group.first not in norms]
                hooks.enter_context(arrivals(dense.block, others, self._arrive_dense))
                hooks.enter_context(_hooked_products(dense.block, norms, self._keep_dense))
                hooks.enter_context(_hooked_norms(dense.block, norms.values(), self._stream_ahead.__setitem__))
            hooks.enter_context(_hooked_norms(block, norms.values(), self._pass_norm))
            if experts is not None:
                for each, is_dense in ((block, False), *(() if dense is None else ((dense.block, True),))):
                    hook = experts.arriving(self._wait, self._propagation.stream.places, is_dense=is_dense)
                    module = each.get_submodule(experts.module)
                    hooks.enter_context(removed_after([module.register_forward_pre_hook(hook, with_kwargs=True)]))
            yield

    def _begin(self, module: nn.Module, arguments: object) -> None:
        # by forward: a block may call a layer several times
        self._places[current_forward()] = next(self._next_places)

    def _arrive(self, group: InputGroup, inputs: Tensor) -> None:
        statistic = self.statistics.setdefault(group, self._propagation.new_statistic())
        places_N = self._places[current_forward()]
        if group.first in self._norms:
            statistic.update(inputs, target=self._target_output(group), places_N=places_N)
        else:
            statistic.update(inputs, self._ahead.pop(group.first, None), places_N=places_N)
        self._wait(group.first)  # before anything is computed for the statistic

    def _arrive_dense(self, group: InputGroup, inputs: Tensor) -> None:
        self._keep_dense(group.first, inputs)

    def _keep_dense(self, first: str, values: Tensor) -> None:
        self._ahead[first] = values
        self._wait(first)

    def _pass_norm(self, norm: str, stream: Tensor) -> None:
        # both are the blocks' own residuals, which stay in memory anyway
        self._streams[norm].append((self._stream_ahead.pop(norm, None), stream))

    def _target_output(self, group: InputGroup) -> Tensor:
        """Return the target of a group's outputs: the dense outputs, plus the stream's shortfall before them.

        The shortfall is the difference from the dense model's stream, or from a target stream.
        """
        dense_stream, stream = self._streams[self._norms[group.first]].popleft()
        output = self._ahead.pop(group.first, None)
        if group.first not in self._target_batches:
            assert output is not None and dense_stream is not None
            return output.float() + (dense_stream.float() - stream.float())
        _, target = next(self._target_batches[group.first])
        difference = target.float() - stream.float()
        bias = self._propagation.block.get_submodule(group.first).bias
        assert bias is None or isinstance(bias, Tensor)
        return difference if bias is None else difference - bias.float()


@dataclass(frozen=True)
class BlockPropagation:
    """Propagation of a stream of tokens through block `index`, which is being pruned.

    Each of `groups` gets a statistic from `new_statistic`. With `dense` every micro-batch goes through the dense block
    just before, unless all targets are known, and statistics get both inputs. At `experts` all tokens wait for a
    mixture to be pruned.
    """

    block: nn.Module
    index: int
    stream: Stream
    groups: Sequence[InputGroup]
    new_statistic: Callable[[], InputStatistic]
    dense: DenseReference | None = None
    experts: ExpertBarrier | None = None

    @property
    def running_dense(self) -> DenseReference | None:
        """The dense reference, if its block has to run."""
        is_run = self.dense is not None and (self.experts is not None or self.dense.is_run_for(self.groups))
        return self.dense if is_run else None

    def prune_in_flight(self, prune_group: PruneGroup) -> None:
        """Run every micro-batch through the block once, pruning each group when all tokens have reached it.

        The forward then continues through the pruned weights: true-sequential propagation for one forward per block.
        """
        dense, experts = self.running_dense, self.experts
        by_name = {group.first: group for group in self.groups}
        backend = backend_of(self.stream.device)
        lanes = [(self.stream, self.block, self.index)]
        if dense is not None:
            lanes.insert(0, (dense.stream, dense.block, dense.index))

        def forward(lane: int, batch: int) -> Callable[[], Tensor]:
            through, module, number = lanes[lane]
            return lambda: call_block(module, through.hidden(batch), through.arguments(number, batch))

        def store(number: int, hidden: Tensor) -> None:
            batch, lane = divmod(number, len(lanes))
            lanes[lane][0].store(batch, hidden)

        forwards = [forward(lane, batch) for batch in range(len(self.stream)) for lane in range(len(lanes))]
        gathering = _Gathering(self, wait_at_barrier)

        def at_barrier(name: str) -> None:
            if experts is not None and name == experts.module:
                experts.release()
                return
            group = by_name[name]
            # Not in trials, whose targets are known: their few tokens free little, and would have to get it back.
            releases = dense is self.dense
            if releases and group is self.groups[-1]:
                backend.release_memory()
            prune_group(group, gathering.statistics.pop(group))
            if releases and group in self.groups[-2:-1]:
                backend.release_memory()

        with gathering.listening():
            run_in_lockstep(forwards, at_barrier, store)
        for through, _, _ in lanes:
            through.step()
        if self.dense is not None and dense is None:
            self.dense.stream.advance_unwatched(self.dense.block, self.dense.index)

    def collect(self, *, advances: bool = False) -> dict[InputGroup, InputStatistic]:
        """Return statistics of every group from the unchanged block; its stream may advance, the dense one does not."""
        dense, gathering = self.running_dense, _Gathering(self, lambda name: None)
        with gathering.listening():
            for batch, hidden in self.stream.batches():
                if dense is not None:
                    call_block(dense.block, dense.stream.hidden(batch), dense.stream.arguments(dense.index, batch))
                output = call_block(self.block, hidden, self.stream.arguments(self.index, batch))
                if advances:
                    self.stream.store(batch, output)
        if advances:
            self.stream.step()
        return gathering.statistics

    def prune_two_pass(self, prune_group: PruneGroup) -> None:
        """Prune in two passes, as the papers do: all statistics from the dense forward, then the pruned block again."""
        for group, statistic in self.collect().items():
            prune_group(group, statistic)
        if self.experts is not None:
            self.experts.release()
        self.stream.advance(self.block, self.index)
        if self.dense is not None:
            self.dense.stream.advance_unwatched(self.dense.block, self.dense.index)
