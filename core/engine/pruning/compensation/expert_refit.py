"""Refit of a mixture whose experts are fewer or narrower: what stays, and the router, make up for what went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.experts import Experts
from core.engine.models.experts import router_tensors
from core.engine.pruning.compensation.expert_fit import ExpertFit
from core.engine.pruning.compensation.mixture_batches import MixtureCall, mixture_batches, watched_experts
from core.engine.pruning.compensation.refit import fitted_tokens
from core.engine.pruning.compensation.unit_refit import UnitRefit
from core.engine.pruning.streams.propagation import BlockPropagation, InputGroup
from core.engine.pruning.units.removal import KeptLayerUnits, UnitSet

_MOST_NOTES = 3
"""Notes on a block's experts that the report has, at most."""


@dataclass(frozen=True)
class FittedRouting:
    """The routing of the calibration tokens in one decoder layer: how many reach each expert, dense and what is left.

    `error` and `refitted` are ‖Y − Ŷ‖/‖Y‖ of what the experts give, before their refit and after, on the tokens held
    aside, or on all where none are; Y is what they are fitted to, so that 0 is the dense model's output.
    """

    tokens: tuple[int, ...]
    tokens_left: tuple[int, ...]
    error: float | None
    refitted: float | None


class ExpertRefit(UnitRefit):
    """Refit of the experts and routers that are left, block by block.

    `routing` is that of each layer whose experts were fitted. The α in `chosen` is the mean over a block's experts, in
    the first sweep.
    """

    refitted = "The last matrices of the experts left, and those of attention where heads went,"

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
        """Refit the experts and the router that are `left` of layer `index`, as `UnitRefit.fit` does linear layers.

        Linear layers beside them that read heads which went are refitted first.
        """
        fitted = dict(left)
        giving = self.experts.parameter(self.experts.giving)
        if giving not in left and kept:  # of a block without experts, linear layers lost channels
            return super().fit(index, tensors, place, left, unit_sets, kept)
        if giving not in left or self._is_dense(tensors, left):
            self._advance(index, tensors, place, fitted)
            return fitted
        for name in (giving, *router_tensors(self.experts, left)):
            fitted[name] = left[name].clone()  # the dense block may hold the same memory
        dense = self.streamed.fill_block(index, tensors, self.dense_stream.dtype)
        self._fit_readers(dense, index, tensors, place, fitted, unit_sets, kept)
        given: list[Tensor] = []
        reached_E = torch.zeros(len(tensors[giving]), dtype=torch.long)

        def note(call: MixtureCall, given_NH: Tensor) -> None:
            given.append(given_NH)
            reached_E.add_(call.tokens.reached(len(reached_E)))

        with watched_experts(dense, self.experts, note):
            self.dense_stream.advance(dense, index)
        self.streamed.empty_block(index)
        block = self.narrow.fill_block(place, fitted, self.stream.dtype)
        fitting = ExpertFit(
            self.experts,
            block,
            mixture_batches(self.experts, block, self.stream, place, self.dense_stream, given),
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

    def _fit_readers(
        self,
        dense: nn.Module,
        index: int,
        tensors: Mapping[str, Tensor],
        place: int,
        fitted: dict[str, Tensor],
        unit_sets: Sequence[UnitSet],
        kept: KeptLayerUnits,
    ) -> None:
        """Refit the linear layers that read units which went; tokens stay where they are."""
        readers = [each for each in unit_sets if each.kind in kept and each.linear in self.family.linears]
        if readers:
            block = self.narrow.fill_block(place, fitted, self.stream.dtype)
            groups = [InputGroup((each.linear,)) for each in readers]
            fit = self._fitting(index, tensors, fitted, block, unit_sets, kept)
            reference = self._reference(dense, index)
            read = BlockPropagation(block, place, self.stream, groups, self._new_statistic, reference)
            for group, statistic in read.collect().items():
                fit(group, statistic)
