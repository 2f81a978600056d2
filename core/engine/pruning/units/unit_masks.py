"""Masks over units of a loaded model, by forward pre-hooks, and by zeros in the last matrices of experts.

A unit's outputs are zeroed where the next linear layer reads them, so that any sub-model can run without removing
weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.unit_kind import KindName
from core.engine.models.hooks import removed_after
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.units.removal import KeptUnits, UnitSet, kept_mask
from core.engine.pruning.units.unit_slices import StackSlice, UnitSlice


@dataclass(frozen=True)
class _Reader:
    """Units of one kind of one decoder layer, with the block whose weights read them."""

    layer: int
    units: UnitSet
    block: nn.Module

    @property
    def unit_slice(self) -> UnitSlice:
        """Return the columns, by unit, of the weight that reads them; units of experts have other readers too."""
        return self.units.reading_slice

    @property
    def module(self) -> nn.Module:
        return self.block.get_submodule(self.unit_slice.linear)

    @property
    def weight(self) -> Tensor:
        return self.block.get_parameter(self.unit_slice.name)

    @contextmanager
    def masked(self, kept: Tensor) -> Iterator[None]:
        """Zero the units not `kept` for their readers, inside the context; for experts, multiply with `kept`."""
        handles = []
        with ExitStack() as zeroed:
            for each in self.units.reading_slices:
                weight = self.block.get_parameter(each.name)
                if isinstance(each, StackSlice):
                    zeroed.enter_context(each.zeroed(weight, kept))
                    continue
                removed_F = torch.ones(weight.shape[each.dimension], dtype=torch.bool)
                removed_F[each.features(kept)] = False
                module = self.block.get_submodule(each.linear)
                handles.append(module.register_forward_pre_hook(_zeroing(removed_F.to(weight.device))))
            with removed_after(handles):
                yield


class UnitMasks:
    """Units (heads or KV groups, and channels) of all blocks as one vector [units].

    The order is layer after layer, and in a layer kind after kind as `unit_sets` lists them. Masks are boolean, True
    where a unit is kept.

    A model with masked units gives the outputs of one without them, including biases of the reading layer. OLMo 2's
    heads are an exception: its norms of queries and keys run over all heads, so that a model without some normalises
    the rest differently.
    """

    def __init__(self, blocks: Sequence[nn.Module], unit_sets: Sequence[Sequence[UnitSet]]) -> None:
        self._readers = [_Reader(layer, each, block) for layer, block in enumerate(blocks) for each in unit_sets[layer]]
        self._sizes = [reader.units.units for reader in self._readers]
        self._layers = len(blocks)

    def __len__(self) -> int:
        return sum(self._sizes)

    def split(self, values_U: Tensor) -> list[dict[KindName, Tensor]]:
        """Split a vector over all units by layer and kind."""
        split: list[dict[KindName, Tensor]] = [{} for _ in range(self._layers)]
        for reader, values in zip(self._readers, values_U.split(self._sizes), strict=True):
            split[reader.layer][reader.units.kind] = values
        return split

    def kept_by(self, kept: KeptUnits) -> Tensor:
        """Return the mask of the units that are kept, [units]."""
        return torch.cat(
            [kept_mask(kept.layers[each.layer].get(each.units.kind), each.units.units) for each in self._readers]
        )

    @contextmanager
    def masked(self, kept_U: Tensor) -> Iterator[None]:
        """Run the blocks, inside the context, as if only the kept units existed."""
        with ExitStack() as masks:
            for reader, kept in zip(self._readers, kept_U.split(self._sizes), strict=True):
                if not kept.all():
                    masks.enter_context(reader.masked(kept.nonzero().flatten()))
            yield

    @contextmanager
    def recorded_statistics(self, places: Sequence[Tensor | None]) -> Iterator[list[InputStatistic]]:
        """Collect, inside the context, statistics of each reading layer's inputs; masks set before apply to them.

        `places` are those of each micro-batch that count; None: all of it.
        """
        seen = [InputStatistic(Statistic.NORMS, sample_stride=2**62) for _ in self._readers]
        handles = [
            reader.module.register_forward_pre_hook(_updating(statistic, iter(places)))
            for reader, statistic in zip(self._readers, seen, strict=True)
        ]
        with removed_after(handles):
            yield seen

    def output_magnitudes(self, seen: Sequence[InputStatistic]) -> Tensor:
        """Return mean |W_out|·rms(activation) of each unit, over all weights that read it: [units], on the CPU."""
        magnitudes = []
        for reader, statistic in zip(self._readers, seen, strict=True):
            rms_F = statistic.norms_I / statistic.tokens**0.5
            sums_U = reader.unit_slice.per_unit(reader.unit_slice.per_feature(reader.weight.float().abs()) * rms_F)
            magnitudes.append((sums_U * reader.unit_slice.units / reader.weight.numel()).cpu())
        return torch.cat(magnitudes)


def _zeroing(removed_F: Tensor) -> Any:
    return lambda module, arguments: (arguments[0].masked_fill(removed_F, 0), *arguments[1:])


def _updating(statistic: InputStatistic, places: Iterator[Tensor | None]) -> Any:
    return lambda module, arguments: statistic.update(arguments[0], places_N=next(places))
