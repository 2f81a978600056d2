"""Gaps left by removed layers, and the dense stream behind a gap, which is the target of the output before it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from core.engine.architectures.architecture import Architecture
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.streams.stream import Stream


def gaps_after(left: Iterable[int], layers: int) -> dict[int, range]:
    """Return for each remaining layer the removed layers right behind it; an empty range for most."""
    ordered = sorted(left)
    return {layer: range(layer + 1, end) for layer, end in zip(ordered, [*ordered[1:], layers], strict=True)}


def output_before_gap(gap: range, family: Architecture) -> str | None:
    """Return the linear layer with the last addition to the stream before a gap.

    None where there is no gap, where experts add to the stream, or where something lies between.
    """
    *_, last = family.sublayers
    return None if not gap or last.norm is None or family.experts is not None else last.output


@contextmanager
def targets_behind_gap(
    gap: range, dense: Stream, streamed: StreamedModel, block: nn.Module
) -> Iterator[Mapping[str, Stream]]:
    """Yield the dense stream behind a gap, by the name of the linear layer before the gap, whose target it is.

    `block`, filled, is the one before the gap. The `dense` stream has not gone through it yet, and stays there. Yields
    an empty mapping where there is no gap, or no such layer.
    """
    linear = output_before_gap(gap, streamed.folder.family)
    if linear is None:
        yield {}
        return
    behind = dense.with_same_tokens("behind-gap")
    behind.advance_from(dense, block, gap.start - 1)
    for layer, passed in streamed.filled_blocks(gap, "passing blocks that go", dense.dtype):
        behind.advance(passed, layer)
    try:
        yield {linear: behind}
    finally:
        behind.close()
