"""Trial of counts: a method prunes the model to them on a few tokens, as the pass does, and the result is discarded."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from core.engine.models.streamed import StreamedModel
from core.engine.pruning.blocks.block_choice import BlockChoice
from core.engine.pruning.streams.paired import GapPassing, PairedStreams
from core.engine.pruning.streams.stream import Stream
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.output_biases import with_biases
from core.engine.pruning.units.removal import UnitCounts, layer_unit_sets, remove_units
from core.engine.pruning.units.removal_config import config_after_removal, narrow_model
from core.engine.resume.store import ResumeStore


class RecordedGaps(GapPassing):
    """Gaps in a model whose `dense` stream is known behind all blocks: the target in front of a gap is there already.

    The last output of every other layer has the dense stream behind the layer as its target.
    """

    def __init__(self, dense: Stream, streamed: StreamedModel, layers: Iterable[int]) -> None:
        super().__init__(dense, streamed, layers)
        self._recorded = dense

    def targets(self, layer: int, block: nn.Module) -> Mapping[str, Stream]:
        if self._last_output is None:
            return {}
        return {self._last_output: self._recorded.after(self._gaps[layer].stop)}

    def pass_layer(self, removed: int, tensors: dict[str, Tensor]) -> None:
        self._recorded.step()


@torch.inference_mode()
def hidden_states_after_trial(
    context: UnitSelectionContext,
    method: UnitMethod,
    counts: UnitCounts,
    dense: Stream,
    seen_NT: Tensor,
) -> list[Tensor]:
    """Return the last block's outputs for batches of the tokens `seen`, after pruning with the tokens of `dense`.

    `dense` knows its hidden states before and behind every block.
    """
    streamed, family = context.streamed, context.folder.family
    raw = config_after_removal(context.folder, context.structure, context.kinds, counts)
    narrow = narrow_model(streamed, raw)
    context.scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=context.scratch) as folder:
        store = ResumeStore(Path(folder), "")
        pruned, seen = (
            Stream(
                name,
                tokens_NT,
                narrow,
                store,
                context.budget,
                dtype=context.forward_dtype,
                micro_batch=context.micro_batch,
                resumable=False,
            )
            for name, tokens_NT in (("pruned", torch.cat(dense.tokens)), ("seen", seen_NT))
        )
        for stream in (dense, pruned, seen):
            stream.start()
        paired = PairedStreams(streamed, dense, RecordedGaps(dense, streamed, counts.layers), narrow, pruned)
        choice = BlockChoice(
            method=method,
            structure=context.structure,
            kinds=context.kinds,
            counts=counts,
            planned=context.planned,
            streamed=streamed,
            paired=paired,
            is_refitted=False,
        )
        places = {layer: place for place, layer in enumerate(counts.layers)}
        for index, tensors in streamed.read_blocks(range(len(streamed)), "trying to remove from blocks"):
            if index not in places:
                paired.skip_layer(index, tensors)
                seen.skip_block()
            else:
                place = places[index]
                complete = with_biases(family, tensors, narrow.blocks[place])
                answer = choice.prune(index, place, tensors, complete)
                unit_sets = layer_unit_sets(family, context.structure, index, context.kinds)
                left = {**remove_units(complete, unit_sets, answer.units), **answer.changed}
                paired.advance_pruned(place, left)
                seen.advance(narrow.fill_block(place, left, context.forward_dtype), place)
                narrow.empty_block(place)
        ends = [hidden for _, hidden in seen.batches()]
        pruned.close()
        seen.close()
    return ends
