"""Gaps left by removed layers: the dense stream behind a gap is the target of the output before it."""

from collections.abc import Iterable, Mapping
from functools import cached_property

from torch import Tensor, nn

from core.engine.models.streamed import StreamedModel
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
