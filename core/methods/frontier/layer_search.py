"""Search for the whole layers that go in place of channels: which a model can best do without, and how many."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.evaluation.divergence import divergences
from core.engine.options.layer_removal import layers_that_may_go
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.pruning.units.trial import ends_after_trial
from core.engine.pruning.units.without_layers import ends_without_each
from core.errors import InvalidSparsity
from core.methods.frontier.layer_drop import LayerDrop

_PARTS = 4
"""Least number of calibration sequences of which some can be held out for trials."""

CountsWithout = Callable[[Sequence[int]], UnitCounts]
"""Function of the layers that go whole: the counts with which as many parameters go in all."""


@dataclass(frozen=True)
class LayerSearch:
    """Search in a model whose layers are pruned by `method`; none of those `protected` goes.

    Layers and channels are compared by what is measured of whole pruned models of as many parameters: the divergence of
    their predictions from the dense model's.
    """

    context: UnitSelectionContext
    method: BlockUnitMethod
    drop: LayerDrop
    protected: frozenset[int]
    counts_without: CountsWithout

    def most_dispensable(self, number: int) -> list[int]:
        """Return so many layers, those first that the predictions diverge least without.

        In the first round every layer is left out alone; those whose loss matters least, twice as many as are to go,
        are left out in the later ones, beside those removed before.
        """
        context, at_once = self.context, self.drop.layers_at_once(number)
        tokens_NT = _of(self._fitted(), self.drop.scanned)
        batches = tokens_NT.split(context.micro_batch)
        tried = [layer for layer in range(context.layers) if layer not in self.protected]
        removed: list[int] = []
        dense: list[Tensor] = []
        while len(removed) < number:
            complete, ends = ends_without_each(context, tokens_NT, removed, tried)
            dense = dense or complete
            lost = dict(zip(ends, divergences(context.streamed, batches, dense, list(ends.values())), strict=True))
            tried = sorted(lost, key=lambda layer: lost[layer])
            going = self._going(tried, removed, min(at_once, number - len(removed)))
            if not going:  # the model cannot run without any of those that are left to try
                break
            context.log("; ".join(f"without layer {layer}: {lost[layer]:.4f} nats" for layer in going))
            removed += going
            tried = [layer for layer in tried[: 2 * number] if layer not in going]
        return removed

    def _going(self, tried: Sequence[int], removed: Sequence[int], count: int) -> list[int]:
        """Return so many of the layers tried, the first ones that may go."""
        going: list[int] = []
        for layer in tried:
            may_go = layers_that_may_go(self.context.folder.description, [*removed, *going])
            if len(going) < count and layer in may_go:
                going.append(layer)
        return going

    def best(self, sparsity: float) -> UnitCounts:
        """Return the counts of the best of models of which that share goes, each without another number of layers."""
        context = self.context
        most = context.layers - len(self.protected) - 1
        numbers = [each for each in self.drop.numbers(context.folder.description, sparsity) if each <= most]
        if len(numbers) == 1 or len(self._calibration()) < _PARTS:
            return self.counts_without([])
        order = self.most_dispensable(numbers[-1])
        fitted_NT, seen_NT = self._fitted(), self._seen()
        dense, _ = ends_without_each(context, seen_NT, (), ())
        trials: list[tuple[float, UnitCounts, str]] = []
        worse = 0
        for number in numbers:
            dropped = sorted(order[:number])
            try:
                counts = self.counts_without(dropped)
            except InvalidSparsity:
                continue
            ends = ends_after_trial(context, self.method, counts, fitted_NT, seen_NT)
            (lost,) = divergences(context.streamed, seen_NT.split(context.micro_batch), dense, [ends])
            what = (
                f"without layer{'s' if number > 1 else ''} {', '.join(map(str, dropped))}" if number else "all layers"
            )
            context.log(f"trial, {what}: {lost:.4f} nats")
            worse = worse + 1 if trials and lost >= min(each for each, _, _ in trials) else 0
            trials.append((lost, counts, f"{what}: {lost:.4f}"))
            if worse == self.drop.rises:
                break
        best = min(trials, key=lambda each: each[0])
        figures = "; ".join(figure for _, _, figure in trials)
        note = (
            "Whole layers against channels, by trials of models of as many parameters, pruned on "
            f"{fitted_NT.numel():,} calibration tokens: divergence from the dense model's predictions on "
            f"{seen_NT.numel():,} others, in nats a token: {figures}. Taken: {best[2].partition(':')[0]}."
        )
        return best[1].model_copy(update={"notes": [*best[1].notes, note]})

    def _seen(self) -> Tensor:
        return self._calibration()[self._is_seen()]

    def _fitted(self) -> Tensor:
        calibration_NT = self._calibration()
        rest_NT = calibration_NT[~self._is_seen()]
        return _of(rest_NT, self.drop.fitted_tokens(calibration_NT.numel()))

    def _is_seen(self) -> Tensor:
        """Return which calibration sequences trials are measured on: evenly spaced, a quarter of them at most: [N]."""
        sequences, length = self._calibration().shape
        number = min(max(1, self.drop.seen // length), sequences // _PARTS)
        seen_N = torch.zeros(sequences, dtype=torch.bool)
        seen_N[torch.arange(number) * sequences // max(1, number)] = True
        return seen_N

    def _calibration(self) -> Tensor:
        assert self.context.calibration is not None
        return self.context.calibration


def _of(tokens_NT: Tensor, tokens: int) -> Tensor:
    """Return evenly spaced sequences, of about so many tokens."""
    sequences, length = tokens_NT.shape
    number = min(max(1, tokens // length), sequences)
    return tokens_NT[torch.arange(number) * sequences // number]
