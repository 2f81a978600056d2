"""Least-squares refit of the remaining layers after units or layers were removed, without training.

The calibration tokens go through the dense model and the pruned one in parallel. The remaining linear layers are fitted
to the dense outputs, to compensate for the removed parts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.engine.models.tensors import to_out_in
from core.engine.options.axes import Refit
from core.engine.pruning.compensation.refit import fitted_tokens, refit
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.streams.paired import PairedStreams
from core.engine.pruning.streams.propagation import InputGroup, PruneGroup, input_groups
from core.engine.pruning.units.removal import KeptLayerUnits, UnitSet, output_slices, remove_units


@dataclass(frozen=True)
class RemainingLayer:
    """Decoder layer `index`: its dense `tensors`, and its remaining weights `left`, block `place` of the narrow model.

    `kept` are the units that stay, of kinds that lost some, from the layer's `unit_sets`.
    """

    index: int
    place: int
    tensors: dict[str, Tensor]
    left: Mapping[str, Tensor]
    unit_sets: Sequence[UnitSet]
    kept: KeptLayerUnits


class UnitRefit:
    """Refit of a narrower model, block by block, to the dense one; both streams of `paired` advance with it.

    `chosen` has the α of every fitted linear layer, by its name in the dense model, where hold-out tokens chose it.
    """

    refitted: ClassVar[str] = "The linear layers that are left"
    """Refitted weights, as the report names them."""

    def __init__(self, compensation: Refit, paired: PairedStreams, note: Callable[[str], None]) -> None:
        assert paired.pruned is not None
        self.compensation = compensation
        self.paired = paired
        self.streamed, self.dense_stream = paired.streamed, paired.dense
        self.narrow, self.stream = paired.narrow, paired.pruned
        self.family = paired.streamed.folder.family
        self.note = note
        self.chosen: dict[str, float] = {}

    @property
    def summary(self) -> str:
        """Sentence for the report on the refit and its α."""
        share = f"α = {self.compensation.refit}"
        if self.chosen:
            mean = sum(self.chosen.values()) / len(self.chosen)
            least, most = min(self.chosen.values()), max(self.chosen.values())
            share = f"each by an α chosen on tokens held aside, {least:g} to {most:g}, {mean:.2f} on average"
        return f"{self.refitted} were refitted to what the dense model gives: {share}."

    def fit(self, layer: RemainingLayer) -> dict[str, Tensor]:
        """Refit a layer's remaining weights to the outputs of its dense tensors, and return them.

        Both streams advance, the narrow one through the returned weights, rounded to their stored dtype. Before the
        first layer that lost units there is no error, and nothing is fitted. The exception is the output before removed
        layers, which is fitted to the dense stream behind them.
        """
        fitted = dict(layer.left)
        groups = input_groups(self.family.inputs, {name.removesuffix(".weight") for name in layer.tensors})
        if self._is_dense(layer):
            groups = [group for group in groups if group.first == self.paired.gaps.output_before(layer.index)]
        if not groups:
            self._advance(layer, fitted)
            return fitted
        dense_block = self.streamed.fill_block(layer.index, layer.tensors, self.dense_stream.dtype)
        block = self.narrow.fill_block(layer.place, fitted, self.stream.dtype)
        change = self._fitting(layer, fitted, block)
        self.paired.fit(dense_block, layer.index, block, layer.place, groups, self._new_statistic, change)
        self.streamed.empty_block(layer.index)
        return fitted

    def _fitting(self, layer: RemainingLayer, fitted: dict[str, Tensor], block: nn.Module) -> PruneGroup:
        """Return the function that refits a layer's linear layers, in `fitted` and in the narrow `block`."""
        prefix = self.streamed.block_prefix(layer.index)
        outputs = output_slices(self.family, layer.unit_sets)

        def fit_group(group: InputGroup, statistic: InputStatistic) -> None:
            names = [f"{name}.weight" for name in group.linears]
            dense = remove_units({name: layer.tensors[name] for name in names}, outputs, layer.kept)
            refitted = refit(
                [self._out_in(fitted[name]) for name in names],
                statistic,
                self.compensation,
                self.note,
                [self._out_in(dense[name]) for name in names],
            )
            for linear, name, each in zip(group.linears, names, refitted, strict=True):
                fitted[name] = to_out_in(each.weight_OI, self.family).to(fitted[name].dtype).contiguous()
                # Not copied in place: the dense block may share the memory.
                value = fitted[name].to(self.stream.dtype)
                block.get_submodule(linear).weight = nn.Parameter(value, requires_grad=False)
                if self.compensation.chooses:
                    assert each.refit is not None
                    self.chosen[f"{prefix}.{linear}"] = round(each.refit, 4)

        return fit_group

    def _is_dense(self, layer: RemainingLayer) -> bool:
        """Return True if nothing was removed so far, so that there is no error to compensate."""
        return self.stream.equals(self.dense_stream) and all(
            torch.equal(layer.left[name].to(tensor.dtype), tensor) for name, tensor in layer.tensors.items()
        )

    def _advance(self, layer: RemainingLayer, left: dict[str, Tensor]) -> None:
        """Advance both streams through a layer without a fit."""
        dense_block = self.streamed.fill_block(layer.index, layer.tensors, self.dense_stream.dtype)
        self.dense_stream.advance(dense_block, layer.index)
        self.stream.advance(self.narrow.fill_block(layer.place, left, self.stream.dtype), layer.place)
        self.streamed.empty_block(layer.index)

    def _new_statistic(self) -> InputStatistic:
        fitted = fitted_tokens(self.compensation, self.stream)
        return InputStatistic(Statistic.GRAM, sample_stride=1, fitted_tokens=fitted)

    def _out_in(self, weight: Tensor) -> Tensor:
        """Return a stored weight as [out_features, in_features], in float32."""
        return to_out_in(weight.float(), self.family)
