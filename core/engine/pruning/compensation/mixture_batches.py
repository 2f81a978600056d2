"""Calls of a mixture's experts by micro-batch, with the outputs that would reproduce the dense block's output."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from core.engine.architectures.experts import Experts
from core.engine.datasets.counted_tokens import rows_at
from core.engine.models.experts import RoutedTokens, mixture_module
from core.engine.models.hooks import removed_after
from core.engine.models.streamed import call_block
from core.engine.pruning.streams.stream import Stream

_SUM_TOLERANCE = 0.05
"""Relative tolerance for the test that a block's output grows by its experts' output when that is doubled."""


@dataclass(frozen=True)
class MixtureCall:
    """Call of a block's experts with one micro-batch.

    `arguments` and `keywords` are those of the mixture, the module that has both experts and router.
    """

    tokens: RoutedTokens
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]


@dataclass(frozen=True)
class MixtureBatch:
    """Micro-batch at a block's experts: the `tokens` that count, and their target output.

    `call` has all tokens; `places_N` are those that count, None: all.
    """

    call: MixtureCall
    places_N: Tensor | None
    tokens: RoutedTokens
    target_NH: Tensor


OnExperts: TypeAlias = Callable[[MixtureCall, Tensor], None]
"""Callback with a call of a block's experts and their output, [tokens, hidden size]."""


@contextmanager
def hooked_experts(block: nn.Module, experts: Experts, on_call: OnExperts) -> Iterator[None]:
    """Call `on_call` with each call of a block's experts."""
    outer: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def enter(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        outer.append((arguments, keywords))

    def leave(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: Tensor) -> None:
        tokens = RoutedTokens.of(arguments, keywords)
        assert tokens is not None
        on_call(MixtureCall(tokens, *outer.pop()), output.reshape(tokens.hidden_NH.shape))

    mixture, own = block.get_submodule(mixture_module(experts)), block.get_submodule(experts.module)
    handles = [
        mixture.register_forward_pre_hook(enter, with_kwargs=True),
        own.register_forward_hook(leave, with_kwargs=True),
    ]
    with removed_after(handles):
        yield


def mixture_batches(
    experts: Experts, block: nn.Module, stream: Stream, place: int, dense: Stream, given: Sequence[Tensor]
) -> list[MixtureBatch]:
    """Run a stream's tokens through block `place`, without advancing them; return each micro-batch's target.

    Where the block adds the experts' output to the rest, the target is the experts' output that makes the block's
    output equal to the dense one, which the `dense` stream holds. Otherwise it is `given`, the dense model's experts'
    output.
    """
    batches: list[MixtureBatch] = []
    calls: list[tuple[MixtureCall, Tensor]] = []
    is_added: bool | None = None
    places = stream.places
    for batch, hidden in stream.batches():
        arguments = stream.arguments(place, batch)
        with hooked_experts(block, experts, lambda call, given_NH: calls.append((call, given_NH))):
            output = call_block(block, hidden, arguments)
        call, given_NH = calls.pop()
        if is_added is None:
            twice = block.get_submodule(experts.module).register_forward_hook(lambda *given: 2 * given[-1])
            with removed_after([twice]):
                doubled = call_block(block, hidden, arguments)
            is_added = _is_sum(output, doubled, given_NH)
        target_NH = given[batch].float()
        if is_added:
            rest = dense.hidden(batch).float() - output.float()
            target_NH = rest.reshape(given_NH.shape) + given_NH.float()
        places_N = places[batch]
        batches.append(MixtureBatch(call, places_N, call.tokens.at(places_N), rows_at(target_NH, places_N)))
    return batches


def _is_sum(output: Tensor, doubled: Tensor, given_NH: Tensor) -> bool:
    """Return True if doubling the experts' output changes the block's output by exactly that output."""
    if output.numel() != given_NH.numel():
        return False
    added_NH = (doubled.float() - output.float()).reshape(given_NH.shape)
    return bool((added_NH - given_NH.float()).norm() <= _SUM_TOLERANCE * given_NH.float().norm())
