"""Refitting what a cut leaves, without training: the calibration tokens go through the dense model and through what is
left of it side by side, and the linear layers that are left take over what the removed groups and layers gave.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from core.catalogue.parameters import Refit
from core.models.skeleton import Skeleton
from core.models.weights import turned
from core.pruning.propagation import DenseTwin, InputGroup, prune_in_flight
from core.pruning.refit import fitted_tokens, refit
from core.pruning.statistics import InputStatistic, Statistic
from core.pruning.streams import Stream
from core.pruning.structure import Groups, LayerCut, output_groups, slice_block


class CutRefit:
    """`dense_stream` goes through the blocks of `skeleton`, `stream`, of the same tokens, through those of `narrow`,
    which differ in number and width. `chosen` is the α of every linear layer that was fitted, where tokens held aside
    chose it, by its name in the dense model.
    """

    def __init__(
        self,
        compensation: Refit,
        skeleton: Skeleton,
        dense_stream: Stream,
        narrow: Skeleton,
        stream: Stream,
        note: Callable[[str], None],
    ) -> None:
        self.compensation = compensation
        self.family = skeleton.folder.family
        self.skeleton, self.dense_stream = skeleton, dense_stream
        self.narrow, self.stream = narrow, stream
        self.note = note
        self.chosen: dict[str, float] = {}

    @property
    def streams(self) -> list[Stream]:
        return [self.dense_stream, self.stream]

    @property
    def summary(self) -> str:
        """What was done, for the report."""
        share = f"α = {self.compensation.refit}"
        if self.chosen:
            mean = sum(self.chosen.values()) / len(self.chosen)
            least, most = min(self.chosen.values()), max(self.chosen.values())
            share = f"each by an α chosen on tokens held aside, {least:g} to {most:g}, {mean:.2f} on average"
        return f"The linear layers that are left were refitted to what the dense model gives: {share}."

    def pass_by(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Layer `index` is gone: the dense stream goes on through it alone."""
        self.dense_stream.advance(self.skeleton.fill_block(index, tensors, self.dense_stream.dtype), index)
        self.skeleton.empty_block(index)
        self.stream.stay()

    def fit(
        self,
        index: int,
        tensors: dict[str, Tensor],
        place: int,
        left: Mapping[str, Tensor],
        groups: Sequence[Groups],
        cut: LayerCut,
    ) -> dict[str, Tensor]:
        """What is `left` of layer `index`, block `place` of the narrow model, fitted to that layer's dense `tensors`.

        Both streams advance, the narrow one through the weights that are returned: rounded to their stored dtype. Up to
        the first layer that lost anything there is nothing to make up for, and nothing is fitted.
        """
        fitted = dict(left)
        is_dense = self._is_dense_so_far() and all(torch.equal(left[name], tensors[name]) for name in tensors)
        dense_block = self.skeleton.fill_block(index, tensors, self.dense_stream.dtype)
        block = self.narrow.fill_block(place, fitted, self.stream.dtype)
        if is_dense:
            self.dense_stream.advance(dense_block, index)
            self.stream.advance(block, place)
            self.skeleton.empty_block(index)
            return fitted
        prefix = self.skeleton.block_prefix(index)
        outputs = output_groups(self.family, groups)

        def fit_group(group: InputGroup, statistic: InputStatistic) -> None:
            names = [f"{name}.weight" for name in group.linears]
            dense = slice_block({name: tensors[name] for name in names}, outputs, cut)
            found = refit(
                [self._out_in(fitted[name]) for name in names],
                statistic,
                self.compensation,
                self.note,
                [self._out_in(dense[name]) for name in names],
            )
            for linear, name, each in zip(group.linears, names, found, strict=True):
                fitted[name] = turned(each.weight_OI, self.family).to(fitted[name].dtype).contiguous()
                # Not copied into the one that is there: the dense block may hold the same memory.
                value = fitted[name].to(self.stream.dtype)
                block.get_submodule(linear).weight = nn.Parameter(value, requires_grad=False)
                if self.compensation.chooses:
                    assert each.refit is not None
                    self.chosen[f"{prefix}.{linear}"] = round(each.refit, 4)

        prune_in_flight(
            block,
            place,
            self.stream,
            [InputGroup(names) for names in self.family.inputs],
            self._new_statistic,
            fit_group,
            DenseTwin(dense_block, self.dense_stream, index, self.family.added_to_stream),
        )
        self.skeleton.empty_block(index)
        return fitted

    def _is_dense_so_far(self) -> bool:
        """Whether both streams are still the same."""
        both = zip(self.dense_stream.batches(), self.stream.batches(), strict=True)
        return all(torch.equal(dense, narrow) for (_, dense), (_, narrow) in both)

    def _new_statistic(self) -> InputStatistic:
        fitted = fitted_tokens(self.compensation, self.stream)
        return InputStatistic(Statistic.GRAM, sample_stride=1, fitted_tokens=fitted)

    def _out_in(self, weight: Tensor) -> Tensor:
        """A stored weight as [out_features, in_features], in float32."""
        return turned(weight.to(self.narrow.device).float(), self.family)
