"""Refit of a mixture whose experts are fewer: those that stay, and the router, make up for those that went."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.experts import Experts
from core.engine.models.experts import RoutedTokens, mixture_module, router_tensors
from core.engine.models.hooks import removed_after
from core.engine.models.streamed import call_block
from core.engine.pruning.compensation.expert_fit import ExpertFit, MixtureBatch
from core.engine.pruning.compensation.refit import fitted_tokens
from core.engine.pruning.compensation.unit_refit import UnitRefit
from core.engine.pruning.expert_rows import FittedRouting
from core.engine.pruning.units.removal import KeptLayerUnits, UnitSet

_ADDED = 0.05
"""Most that a block's output may differ, where its experts give twice as much, from having that added to it."""
_MOST_NOTES = 3
"""Notes on a block's experts that the report has, at most."""


class ExpertRefit(UnitRefit):
    """Refit of the experts and routers that are left, block by block.

    `routing` is that of each layer whose experts were fitted. The α in `chosen` is the mean over a block's experts, in
    the first sweep.
    """

    refitted = "The last matrices of the experts left"

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        assert self.family.experts is not None
        self.experts: Experts = self.family.experts
        self.routing: dict[int, FittedRouting] = {}

    def fit(
        self,
        index: int,
        tensors: dict[str, Tensor],
        place: int,
        left: Mapping[str, Tensor],
        unit_sets: Sequence[UnitSet],
        kept: KeptLayerUnits,
    ) -> dict[str, Tensor]:
        """Refit the experts and the router that are `left` of layer `index`, as `UnitRefit.fit` does linear layers."""
        fitted = dict(left)
        giving = self.experts.parameter(self.experts.giving)
        if giving not in left or self._is_dense(tensors, left):
            self._advance(index, tensors, place, fitted)
            return fitted
        for name in (giving, *router_tensors(self.experts, left)):
            fitted[name] = left[name].clone()  # the dense block may hold the same memory
        dense = self.streamed.fill_block(index, tensors, self.dense_stream.dtype)
        given: list[Tensor] = []
        reached_E = torch.zeros(len(tensors[giving]), dtype=torch.long)

        def note(call: _Call) -> None:
            given.append(call.given_NH)
            reached_E.add_(call.tokens.reached(len(reached_E)))

        with _watched(dense, self.experts, note):
            self.dense_stream.advance(dense, index)
        self.streamed.empty_block(index)
        block = self.narrow.fill_block(place, fitted, self.stream.dtype)
        fitting = ExpertFit(
            self.experts,
            block,
            self._batches(block, place, given),
            fitted,
            self.compensation,
            fitted_tokens(self.compensation, self.stream),
        )
        before = fitting.error
        shares = fitting.run()
        if self.compensation.chooses and shares:
            self.chosen[f"{self.streamed.block_prefix(index)}.{giving}"] = round(sum(shares) / len(shares), 4)
        for text in fitting.notes[:_MOST_NOTES]:
            self.note(f"Layer {index}: {text}")
        self.routing[index] = FittedRouting(
            tuple(reached_E.tolist()),
            fitting.reached,
            before,
            fitting.error,
        )
        self.stream.advance(block, place)
        return fitted

    def _batches(self, block: nn.Module, place: int, given: Sequence[Tensor]) -> list[MixtureBatch]:
        """Run the pruned tokens through the block as it is, and return each micro-batch with its target.

        Where the block adds what its experts give to the rest, the target is what would make its output that of the
        dense one, which the dense stream holds by now; else it is what the dense model's experts have `given`.
        """
        batches: list[MixtureBatch] = []
        calls: list[_Call] = []
        is_added: bool | None = None
        for batch, hidden in self.stream.batches():
            arguments = self.stream.arguments(place, batch)
            with _watched(block, self.experts, calls.append):
                output = call_block(block, hidden, arguments)
            call = calls.pop()
            if is_added is None:
                twice = block.get_submodule(self.experts.module).register_forward_hook(lambda *given: 2 * given[-1])
                with removed_after([twice]):
                    doubled = call_block(block, hidden, arguments)
                is_added = _is_sum(output, doubled, call.given_NH)
            target_NH = given[batch].float()
            if is_added:
                rest = self.dense_stream.hidden(batch).float() - output.float()
                target_NH = rest.reshape(call.given_NH.shape) + call.given_NH.float()
            batches.append(MixtureBatch(call.tokens, target_NH, call.arguments, call.keywords))
        return batches


@dataclass(frozen=True)
class _Call:
    """Call of a block's experts with one micro-batch, and what they gave.

    `arguments` and `keywords` are those of the mixture, the module that has both experts and router.
    """

    tokens: RoutedTokens
    given_NH: Tensor
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]


@contextmanager
def _watched(block: nn.Module, experts: Experts, on_call: Callable[[_Call], None]) -> Iterator[None]:
    """Call `on_call` with each call of a block's experts."""
    outer: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def enter(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        outer.append((arguments, keywords))

    def leave(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: Tensor) -> None:
        tokens = RoutedTokens.of(arguments, keywords)
        assert tokens is not None
        on_call(_Call(tokens, output.reshape(tokens.hidden_NH.shape), *outer.pop()))

    mixture, own = block.get_submodule(mixture_module(experts)), block.get_submodule(experts.module)
    handles = [
        mixture.register_forward_pre_hook(enter, with_kwargs=True),
        own.register_forward_hook(leave, with_kwargs=True),
    ]
    with removed_after(handles):
        yield


def _is_sum(output: Tensor, doubled: Tensor, given_NH: Tensor) -> bool:
    """Return True if twice as much from the experts has added what they give to a block's output."""
    if output.numel() != given_NH.numel():
        return False
    added_NH = (doubled.float() - output.float()).reshape(given_NH.shape)
    return bool((added_NH - given_NH.float()).norm() <= _ADDED * given_NH.float().norm())
