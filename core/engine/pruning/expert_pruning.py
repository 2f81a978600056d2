"""Pruning of a block's experts, one after the other, each with the statistics of the tokens routed to it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import isfinite, sqrt

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import ExpertMatrix, Experts
from core.engine.architectures.structure import LinearShape
from core.engine.models.experts import ExpertStacks, out_in
from core.engine.pruning.compensation.refit import Fitted, prune_and_fit
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.plan import LayerwisePlan
from core.engine.pruning.results import ExpertRow, RoutingRow
from core.engine.pruning.solver import PrunableLinear
from core.engine.pruning.streams.propagation import ExpertBarrier
from secateur_wire.errors import RunFailed

_MOST_NOTES = 3
"""Largest number of notes on a block's experts in the report."""


@dataclass(frozen=True)
class _Batch:
    """Tokens of a micro-batch that an expert reads, [tokens, hidden_size], with their gates [tokens]; None: all are 1.

    `dense_NH` are the dense model's hidden states of the same tokens, where it runs too.
    """

    hidden_NH: Tensor
    gates_N: Tensor | None
    dense_NH: Tensor | None


@dataclass(frozen=True)
class _ExpertTokens:
    """Tokens with which an expert is pruned: those routed to it or, with `is_pooled`, all tokens.

    `fitted` is the number of first tokens to which weights are fitted; the others are hold-out tokens. None: all.
    """

    batches: Sequence[_Batch]
    routed: int
    fitted: int | None
    is_pooled: bool


@dataclass
class _StackFigures:
    """Figures of a stack while it is pruned: zeros, lost and total energy on the experts' own tokens, and all fits."""

    shape: LinearShape
    zeros: int = 0
    lost: float = 0.0
    total: float = 0.0
    fits: list[Fitted] = field(default_factory=list)


@dataclass(frozen=True)
class ExpertPruner:
    """Pruner of the experts of one block, whose full name is `prefix`.

    `tensors` are the block's weights to be saved, by name within it; `dense` is the same block of the dense model,
    where that runs too. `linears` are the stacks to prune, by full name, each with its place among all prunable layers
    of the model. `fitted_tokens` is the number of first tokens to which weights are fitted; the others are hold-out
    tokens.
    """

    plan: LayerwisePlan
    experts: Experts
    linears: Mapping[str, tuple[int, LinearShape]]
    prefix: str
    block: nn.Module
    tensors: Mapping[str, Tensor]
    dense: nn.Module | None
    fitted_tokens: int | None
    note: Callable[[str], None]
    _notes: list[str] = field(default_factory=list, init=False)

    @cached_property
    def _stacks(self) -> ExpertStacks:
        return ExpertStacks(self.block, self.experts)

    @cached_property
    def _dense_stacks(self) -> ExpertStacks | None:
        return None if self.dense is None else ExpertStacks(self.dense, self.experts)

    @cached_property
    def _figures(self) -> dict[str, _StackFigures]:
        """Figures of each stack that is pruned, by its name among the experts' matrices."""
        return {
            matrix.name: _StackFigures(self.linears[name][1])
            for matrix in self.experts.matrices
            if (name := f"{self.prefix}.{self.experts.parameter(matrix)}") in self.linears
        }

    @property
    def prunes_any(self) -> bool:
        """True if the block has experts to prune."""
        return bool(self._figures)

    def prune(self, arrived: ExpertBarrier) -> tuple[list[ExpertRow], RoutingRow]:
        """Prune the experts with the tokens that arrived; return the rows of the report.

        The block's weights and `tensors` are changed. In flight an expert's second matrix reads the outputs of its
        pruned first one, otherwise of the dense one.
        """
        figures, notes, experts = list(self._figures.values()), self._notes, range(len(self._stacks))
        module = f"{self.prefix}.{self.experts.module}"
        routed, pooled = [], []
        for expert in experts:
            share = self._share(arrived, expert)
            self._expert(expert, share)
            routed.append(share.routed)
            if share.is_pooled:
                pooled.append(expert)
            del share  # its copies of hidden states, before the next expert's are made
        for text in notes[:_MOST_NOTES]:
            self.note(text)
        if len(notes) > _MOST_NOTES:
            self.note(f"{module}: {len(notes) - _MOST_NOTES} more such notes, on other experts")
        routing = RoutingRow(module, figures[0].shape.layer, tuple(routed), tuple(pooled))
        return [self._row(each, len(experts)) for each in figures], routing

    def _share(self, arrived: ExpertBarrier, expert: int) -> _ExpertTokens:
        """Return the tokens with which an expert is pruned: all tokens if no routed ones can be fitted or held out."""
        routed = [tokens.of_expert(expert) for tokens in arrived.tokens]
        total = sum(len(rows_N) for rows_N, _ in routed)
        fitted = None
        if self.fitted_tokens is not None:
            starts = accumulate((len(each.hidden_NH) for each in arrived.tokens), initial=0)
            firsts = (
                (rows_N + start < self.fitted_tokens).sum() for start, (rows_N, _) in zip(starts, routed, strict=False)
            )
            fitted = sum(map(int, firsts))
        is_pooled = not any(bool((gates_N != 0).any()) for _, gates_N in routed) or fitted in (0, total)
        dense: Sequence[Tensor | None] = arrived.dense or [None] * len(arrived.tokens)
        if is_pooled:
            batches = [
                _Batch(tokens.hidden_NH, None, dense_NH) for tokens, dense_NH in zip(arrived.tokens, dense, strict=True)
            ]
            return _ExpertTokens(batches, total, self.fitted_tokens, is_pooled=True)
        batches = [
            _Batch(tokens.hidden_NH[rows_N], gates_N, None if dense_NH is None else dense_NH[rows_N])
            for tokens, (rows_N, gates_N), dense_NH in zip(arrived.tokens, routed, dense, strict=True)
            if len(rows_N)
        ]
        return _ExpertTokens(batches, total, fitted, is_pooled=False)

    def _expert(self, expert: int, share: _ExpertTokens) -> None:
        stacks, before, figures = self._stacks, self._dense_stacks, self._figures
        reading, giving = self.experts.matrices
        inner: Iterable[Tensor] = (stacks.inner(each.hidden_NH, expert) for each in share.batches)
        if self.plan.propagation != "in_flight":
            inner = list(inner)  # by the dense first matrix
        if reading.name in figures:
            self._matrix(expert, reading, share, ((each.hidden_NH, each.dense_NH) for each in share.batches))
        if giving.name in figures:
            dense = (
                None if before is None or each.dense_NH is None else before.inner(each.dense_NH, expert)
                for each in share.batches
            )
            self._matrix(expert, giving, share, zip(inner, dense, strict=True))

    def _matrix(
        self, expert: int, matrix: ExpertMatrix, share: _ExpertTokens, inputs: Iterable[tuple[Tensor, Tensor | None]]
    ) -> None:
        """Prune one matrix of an expert with its inputs, and the dense model's, of each micro-batch."""
        figures, statistic = self._figures[matrix.name], self._statistic(share)
        for batch, (inputs_NI, dense_NI) in zip(share.batches, inputs, strict=True):
            gates_N = batch.gates_N if statistic.level is Statistic.GRAM else None
            statistic.update(_weighted(inputs_NI, gates_N), None if dense_NI is None else _weighted(dense_NI, gates_N))
        statistic.fill_unseen_inputs()
        index, shape = self.linears[figures.shape.name]
        stored = self.tensors[self.experts.parameter(matrix)][expert]
        dense_OI = out_in(stored, self.experts).float()
        linear = PrunableLinear(
            f"{figures.shape.name}.{expert}", expert * len(self.plan.linears) + index, dense_OI, self.plan.target(shape)
        )
        (fit,) = prune_and_fit(self.plan.method, [linear], statistic, self.plan.compensation, self._notes.append)
        rounded_OI = fit.weight_OI.to(stored.dtype)
        counted = (rounded_OI == 0).sum(dtype=torch.float64), rounded_OI.sum(dtype=torch.float64)
        zeros, total = torch.stack(counted).tolist()
        if not isfinite(total):
            raise RunFailed(f"{linear.name}: its inputs are infinite or not a number, so there is nothing to solve for")
        figures.zeros += int(zeros)
        figures.fits.append(fit)
        if not share.is_pooled:
            figures.total += float(statistic.energy(dense_OI))
            figures.lost += float(statistic.energy(dense_OI - rounded_OI.float()))
        # dense_OI may be a view of this tensor, and is invalid from here on
        stored.copy_(out_in(rounded_OI, self.experts))
        self._stacks.matrix_OI(matrix, expert).data.copy_(rounded_OI)

    def _statistic(self, share: _ExpertTokens) -> InputStatistic:
        tokens = sum(len(each.hidden_NH) for each in share.batches)
        return self.plan.statistic(self.plan.method.statistic, tokens, share.fitted)

    def _row(self, figures: _StackFigures, experts: int) -> ExpertRow:
        shape, fits = figures.shape, figures.fits
        refits = [fit.refit for fit in fits if fit.refit is not None]
        return ExpertRow(
            name=shape.name,
            layer=shape.layer,
            out_features=shape.out_features,
            in_features=shape.in_features,
            target=self.plan.target(shape).sparsity,
            zeros=figures.zeros,
            sparsity=figures.zeros / shape.numel,
            reconstruction_error=sqrt(max(figures.lost, 0.0) / figures.total) if figures.total > 0 else None,
            refit=sum(refits) / len(refits) if refits else None,
            experts=experts,
        )


def _weighted(values_NI: Tensor, gates_N: Tensor | None) -> Tensor:
    """Return rows times their gates: an expert's error counts in its block's output by the gate of each token."""
    return values_NI if gates_N is None else values_NI.float() * gates_N.float()[:, None]
