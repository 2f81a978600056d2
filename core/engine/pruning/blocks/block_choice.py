"""Choice of a block's units from calibration tokens: in the pass that removes them, and in trials of counts.

A trial prunes the model to counts on a few tokens, as the pass does, and its result is discarded.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.units import UnitKind
from core.engine.models.streamed import StreamedModel, call_block
from core.engine.pruning.compensation.last_matrices import fit_last_matrices, hooked_experts, mixture_batches
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.streams.paired import GapPassing, PairedStreams
from core.engine.pruning.streams.propagation import BlockPropagation, InputGroup
from core.engine.pruning.streams.stream import Stream
from core.engine.pruning.units.method import (
    BlockToPrune,
    FitExpert,
    FitLinears,
    PlannedTensors,
    PrunedBlock,
    PrunedTokens,
    TokensAtBlock,
    UnitMethod,
    UnitSelectionContext,
)
from core.engine.pruning.units.removal import UnitCounts, layer_unit_sets, remove_units
from core.engine.pruning.units.removal_config import config_after_removal, narrow_model, with_biases
from core.engine.resume.store import ResumeStore


@dataclass(frozen=True)
class BlockChoice:
    """Method that chooses or looks up the units of each block, and the streams of calibration tokens that it reads.

    `paired` is None where neither the method nor a refit reads tokens. The units of `kinds` are given by `counts`, and
    `planned` are tensors of the method's own plan. With `is_refitted`, a refit of the block follows and advances the
    streams.
    """

    method: UnitMethod
    structure: ModelStructure
    kinds: tuple[UnitKind, ...]
    counts: UnitCounts
    planned: PlannedTensors
    streamed: StreamedModel
    paired: PairedStreams | None
    is_refitted: bool

    def prune(self, index: int, place: int, tensors: dict[str, Tensor], complete: Mapping[str, Tensor]) -> PrunedBlock:
        """Let the method choose the units that block `index` keeps; it is block `place` of the narrow model.

        `tensors` are the dense model's. `complete` are the tensors to prune, with the biases that were added.
        """
        family, paired = self.streamed.folder.family, self.paired
        block = BlockToPrune(
            family=family,
            layer=index,
            shape=self.structure.layers[index],
            kinds=self.kinds,
            unit_sets=layer_unit_sets(family, self.structure, index, self.kinds),
            counts=self.counts.layers[index],
            tensors=complete,
            planned=self.planned.read(index),
            kept=None if self.counts.kept is None else self.counts.kept[index],
            last_before_gap=None if paired is None else paired.gaps.output_before(index),
        )
        if paired is None or self.method.reads == "none":
            return self.method.prune_block(block, None, None)
        dense = paired.dense
        module = self.streamed.fill_block(index, tensors, dense.dtype)

        def run_dense() -> None:
            if self.is_refitted:
                _run(dense, module, index)
            else:
                assert dense.done == index, "the tokens have gone through this block"
                dense.advance(module, index)

        pruned_block = self.method.prune_block(
            block,
            TokensAtBlock(module, run_dense, dense.places),
            self._pruned_tokens(paired, block, module, place) if self.method.reads == "pruned" else None,
        )
        if not self.is_refitted and dense.done == index:
            dense.advance_unwatched(module, index)
        self.streamed.empty_block(index)
        return pruned_block

    def _pruned_tokens(self, paired: PairedStreams, block: BlockToPrune, module: nn.Module, place: int) -> PrunedTokens:
        dense, stream = paired.dense, paired.pruned
        assert stream is not None

        def new_statistic() -> InputStatistic:
            return InputStatistic(Statistic.GRAM, sample_stride=1)

        def fit(groups: Sequence[InputGroup], fit_linears: FitLinears) -> None:
            assert not self.is_refitted and dense.done == block.layer, "the tokens are fitted to once"
            changing = deepcopy(module)

            def change(group: InputGroup, statistic: InputStatistic) -> None:
                for linear, weight in fit_linears(group, statistic).items():
                    value = weight.to(dense.dtype)
                    changing.get_submodule(linear).weight = nn.Parameter(value, requires_grad=False)

            paired.fit(module, block.layer, changing, place, groups, new_statistic, change)

        def reading(linear: str) -> InputStatistic:
            assert not self.is_refitted and dense.done == block.layer, "the tokens have gone through this block"
            group = InputGroup((linear,))
            reference = paired.reference(module, block.layer)
            read = BlockPropagation(deepcopy(module), place, stream, [group], new_statistic, reference)
            return read.collect()[group]

        def fit_experts(before: Mapping[str, Tensor], fit_expert: FitExpert) -> None:
            assert not self.is_refitted and dense.done == block.layer, "the tokens are fitted to once"
            experts = block.family.experts
            assert experts is not None
            changing = deepcopy(module)
            for name, weight in before.items():
                changing.get_parameter(name).data.copy_(weight)
            given: list[Tensor] = []
            with hooked_experts(module, experts, lambda call, given_NH: given.append(given_NH)):
                dense.advance(module, block.layer)
            batches = mixture_batches(experts, changing, stream, place, dense, given)
            fit_last_matrices(experts, changing, batches, block.tensors, fit_expert)
            stream.advance(changing, place)

        are_dense = partial(stream.equals, dense)
        return PrunedTokens(
            module, lambda: _run(stream, module, place), stream.places, are_dense, fit, reading, fit_experts
        )


def _run(stream: Stream, block: nn.Module, index: int) -> None:
    """Run a stream's tokens through a block without advancing them."""
    for batch, hidden in stream.batches():
        call_block(block, hidden, stream.arguments(index, batch))


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
