"""Calibration tokens through the dense model and, beside them, through the model that is left, past removed layers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from core.engine.models.streamed import StreamedModel
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.streams.propagation import BlockPropagation, DenseReference, InputGroup, PruneGroup
from core.engine.pruning.streams.stream import Stream


class GapPassing:
    """Walk of the `dense` stream through the removed layers, each once; it gives the target in front of a gap.

    `streamed` is the dense model, `layers` are those that remain.
    """

    def __init__(self, dense: Stream, streamed: StreamedModel, layers: Iterable[int]) -> None:
        self._dense = dense
        self._streamed = streamed
        ordered = sorted(layers)
        ends = [*ordered[1:], len(streamed)]
        self._gaps = {layer: range(layer + 1, end) for layer, end in zip(ordered, ends, strict=True)}
        self._after: dict[int, Stream] = {}

    @cached_property
    def _last_output(self) -> str | None:
        """Linear layer with the last addition to the stream in a layer."""
        family = self._streamed.folder.family
        *_, last = family.sublayers
        return None if last.norm is None or family.experts is not None else last.output

    def output_before(self, layer: int) -> str | None:
        """Return the linear layer with the last addition to the stream in a remaining layer that a gap follows.

        None where no gap follows, where experts add to the stream, or where something lies between.
        """
        return self._last_output if self._gaps[layer] else None

    def targets(self, layer: int, block: nn.Module) -> Mapping[str, Stream]:
        """Return the dense stream behind the gap after a layer, by the name of the linear layer whose target it is.

        `block` is the layer, filled. The dense stream has not gone through it yet, and stays there. The mapping is
        empty where there is no gap, or no such linear layer.
        """
        linear = self.output_before(layer)
        if linear is None:
            return {}
        gap, dtype = self._gaps[layer], self._dense.dtype
        self._after[layer] = self._dense.with_same_tokens(f"after-{layer}")
        self._after[layer].advance_from(self._dense, block, layer)
        for removed, passed in self._streamed.filled_blocks(gap, "passing blocks that go", dtype):
            self._after[removed] = self._dense.with_same_tokens(f"after-{removed}")
            self._after[removed].advance_from(self._after[removed - 1], passed, removed)
        self._after.pop(layer).close()
        return {linear: self._after[gap[-1]]}

    def pass_layer(self, removed: int, tensors: dict[str, Tensor]) -> None:
        """Advance the dense stream through a removed layer, whose tensors are given."""
        if removed in self._after:
            self._dense.advance_to(self._after.pop(removed))
            return
        self._dense.advance(self._streamed.fill_block(removed, tensors, self._dense.dtype), removed)
        self._streamed.empty_block(removed)


@dataclass(frozen=True)
class PairedStreams:
    """Streams of the same tokens: `dense` through the blocks of `streamed`, `pruned` through those of `narrow`.

    `gaps` are those that removed layers leave in the dense model. `pruned` is None where nothing reads it.
    """

    streamed: StreamedModel
    dense: Stream
    gaps: GapPassing
    narrow: StreamedModel
    pruned: Stream | None

    @property
    def streams(self) -> list[Stream]:
        return [self.dense] if self.pruned is None else [self.dense, self.pruned]

    def reference(self, block: nn.Module, index: int, targets: Mapping[str, Stream] | None = None) -> DenseReference:
        """Return the dense tokens at block `index`, with the `targets` of layers that have others than its outputs."""
        return DenseReference(block, self.dense, index, self.streamed.folder.family.added_to_stream, targets or {})

    def fit(
        self,
        dense_block: nn.Module,
        index: int,
        block: nn.Module,
        place: int,
        groups: Sequence[InputGroup],
        new_statistic: Callable[[], InputStatistic],
        change: PruneGroup,
    ) -> None:
        """Send both streams through a block side by side; `change` each group of linear layers of `block` in flight.

        `block` is block `place` of the narrow model, and `dense_block` is layer `index` of the dense one. Before a gap,
        the target of the last layer is the dense stream behind the gap.
        """
        assert self.pruned is not None
        reference = self.reference(dense_block, index, self.gaps.targets(index, dense_block))
        BlockPropagation(block, place, self.pruned, groups, new_statistic, reference).prune_in_flight(change)

    def skip_layer(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Advance past the removed layer `index`: the dense stream goes through it, the other skips it."""
        self.gaps.pass_layer(index, tensors)
        if self.pruned is not None:
            self.pruned.skip_block()

    def advance_pruned(self, place: int, left: dict[str, Tensor]) -> None:
        """Advance the pruned tokens through what is left of a block, unless they advanced with the dense ones."""
        if self.pruned is not None and self.pruned.done < self.dense.done:
            self.pruned.advance(self.narrow.fill_block(place, left, self.pruned.dtype), place)
            self.narrow.empty_block(place)
