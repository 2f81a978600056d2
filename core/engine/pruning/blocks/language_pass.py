"""Removal of units or whole blocks: a method chooses them, and one pass over the blocks removes them.

Kinds of removal derive classes from this one.

A method plans the number of units of each layer before the pass, and chooses the units themselves then or during it.
The dense and the pruned model are measured on the same tokens in that pass. It can be resumed after the choice, and at
any block. In memory are embeddings and head, one block before and after removal, the activation budget and, with a
refit, the statistics of one input group; a method's choice before the pass needs its own memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from core.engine.architectures.description import require_structure
from core.engine.architectures.unit_counts import WidthReduction
from core.engine.architectures.units import AttentionMode, KindName, UnitKind
from core.engine.cuts import LAYER, RemovalPlan
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import fast_arithmetic
from core.engine.models.streamed import StreamedModel
from core.engine.options.axes import Refit
from core.engine.pruning.block_pass import BlockPass
from core.engine.pruning.blocks.block_choice import BlockChoice
from core.engine.pruning.compensation.expert_refit import ExpertRefit
from core.engine.pruning.compensation.unit_refit import RemainingLayer, UnitRefit
from core.engine.pruning.plan import PruningPlan
from core.engine.pruning.results import PruneResult, UnitRow
from core.engine.pruning.streams.paired import GapPassing, PairedStreams
from core.engine.pruning.units.method import PlannedTensors, PrunedBlock, UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import KeptLayerUnits, UnitCounts, UnitSet, layer_unit_sets, remove_units
from core.engine.pruning.units.removal_config import config_after_removal, narrow_model, with_biases
from core.engine.resume.kinds import BLOCK, SELECTION
from core.engine.resume.store import Saved
from secateur_wire.base import JsonObject
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import Layout


@dataclass(frozen=True, kw_only=True)
class UnitRemovalPlan(PruningPlan):
    """Choices of one pass that removes units; `removal` has the counts that the kind of removal decided.

    `sparsity` is a share of all parameters of the model; with `at_least` no less is removed.
    """

    layout: Layout
    at_least: bool
    removal: RemovalPlan
    method: UnitMethod = field(compare=False)

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return self.removal.kinds

    @property
    def width_reduction(self) -> WidthReduction | None:
        """Width reduction of the layers; None where no layer gets narrower."""
        return self.removal.width_reduction

    @property
    def compensation(self) -> Refit | None:
        """Options of the refit of the remaining weights; None: no refit."""
        return self.parameters.requested_compensation

    @property
    def attention(self) -> AttentionMode:
        """Unit by which attention heads are removed."""
        return "none" if self.width_reduction is None else self.width_reduction.attention

    @property
    def weight_reads(self) -> int:
        """Number of times the model's weights are read, for the choice and for the removal."""
        return 1 + self.method.weight_reads

    @property
    def choices(self) -> JsonObject:
        reduction = self.width_reduction
        costs = None if reduction is None or reduction.costs is None else reduction.costs.model_dump(mode="json")
        return {"at_least": self.at_least, "layout": self.layout} | ({} if costs is None else {"costs": costs})

    @property
    def settings(self) -> JsonObject:
        compensation = self.compensation
        return {
            "attention": self.attention,
            "layout": self.layout,
            "protected_layers": [] if self.width_reduction is None else [*sorted(self.width_reduction.protected)],
            "compensation": None if compensation is None else compensation.model_dump(mode="json"),
        }


class UnitRemovalPass(BlockPass):
    """Choice of units, and the pass that removes them.

    With `fits_experts`, a refit also fits the experts of a mixture that lost units.
    """

    fits_experts: ClassVar[bool] = False

    def __init__(self, folder: ModelFolder, plan: UnitRemovalPlan, **setting: Any) -> None:
        """Set up the pass; `setting` are the keyword arguments of `BlockPass`."""
        super().__init__(folder, plan, **setting)
        self.plan = plan
        if plan.compensation is not None and self.calibration_tokens is None:
            raise InvalidRequest(
                "calibration is required: parameters.compensation fits the remaining weights to the dense model's "
                "outputs on text",
                param="calibration",
            )
        self.structure = require_structure(folder.description)
        self.rows: list[UnitRow] = []
        self.streamed = StreamedModel(folder, dtype=plan.dtype, device=plan.device)
        self.planned = PlannedTensors(self.store)

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return self.plan.kinds

    def run(self) -> PruneResult:
        """Choose what to remove, then process all blocks; raises UnusableModel kinds for unusable tensors."""
        self.progress.stage("prune")
        with fast_arithmetic(self.plan.device):
            return self._remove(self._earlier_plan() or self._new_plan())

    @property
    def block_state(self) -> Mapping[str, Any]:
        """Return the state to save after each block, beside the common state of all passes."""
        return {}

    def restore_blocks(self, state: Mapping[str, Any]) -> None:
        """Restore the state that an earlier attempt saved after its last block."""

    def pruned_config(self, counts: UnitCounts) -> JsonObject:
        return config_after_removal(self.stored_folder, self.structure, self.kinds, counts)

    def remove(
        self, place: int, tensors: Mapping[str, Tensor], unit_sets: Sequence[UnitSet], kept: KeptLayerUnits
    ) -> dict[str, Tensor]:
        """Return the remaining tensors of a block, which is block `place` of the pruned model."""
        return remove_units(tensors, unit_sets, kept)

    def record_block(self, index: int, answer: PrunedBlock, refit: UnitRefit | None) -> None:
        """Record facts of a pruned block for the report."""

    def rows_of(self, index: int, counts: UnitCounts, costs: Mapping[KindName, float]) -> Iterable[UnitRow]:
        """Yield the report's rows of a layer: one for each kind of its units, or one for a removed layer.

        `costs` are the expected increases of the loss, by kind.
        """
        name, shape = self.streamed.block_prefix(index), self.structure.layers[index]
        if index not in counts.layers:
            yield UnitRow(name, index, LAYER, 1, 0, shape.parameters)
            return
        for kind in self.kinds:
            before, after = kind.units(shape), counts.layers[index].units[kind.name]
            removed = (before - after) * kind.parameters(self.structure, index)
            yield UnitRow(name, index, kind.name, before, after, removed, costs.get(kind.name))

    @property
    def sections(self) -> Mapping[str, Sequence[Any]]:
        """Return the rows that the kind adds to the report, by the names of its sections."""
        return {}

    def _new_plan(self) -> UnitCounts:
        plan = self.plan
        calibration = self.calibration_tokens
        if plan.method.tries_models:
            self.begin_trials()
        elif calibration is not None:
            self.begin_measurements()
        context = UnitSelectionContext(
            folder=self.folder,
            structure=self.structure,
            streamed=self.streamed,
            sparsity=plan.sparsity,
            at_least=plan.at_least,
            layout=plan.layout,
            removal=plan.removal,
            calibration=calibration,
            forward_dtype=plan.forward_dtype,
            micro_batch=1 if calibration is None else plan.micro_batch(calibration.shape[1]),
            budget=self.budget,
            scratch=self.work / "scratch",
            planned=self.planned,
            log=self.progress.log,
            begin_trials=self.begin_trials,
        )
        counts = plan.method.plan(context)
        self.store.save(SELECTION, 0, {}, counts.model_dump(mode="json"))
        return counts

    def _earlier_plan(self) -> UnitCounts | None:
        """Return the method's plan of this or an earlier attempt if it had the same inputs, else None."""
        saved = self.store.load(SELECTION)
        if not isinstance(saved, Saved):
            return None
        self.store.adopt(SELECTION, saved)
        return UnitCounts.model_validate(saved.state)

    @torch.inference_mode()
    def _remove(self, counts: UnitCounts) -> PruneResult:
        plan, streamed = self.plan, self.streamed
        self.notes += counts.notes
        raw = self.pruned_config(counts)
        stored = self.model_as_stored(streamed)
        narrow = narrow_model(stored, raw)
        self.set_up_streams(streamed, narrow, stored)
        pruned = [*self.pruned_streams.values(), self.verification]
        paired = self._paired_streams(counts, narrow)
        refit = self._refit(paired)
        choice = BlockChoice(
            method=plan.method,
            structure=self.structure,
            kinds=self.kinds,
            counts=counts,
            planned=self.planned,
            streamed=streamed,
            paired=paired,
            is_refitted=refit is not None,
        )
        streams = [*self.streams, *(paired.streams if paired else [])]
        saved = self.resume(streams, len(streamed))
        start = 0
        if saved is None:
            for stream in streams:
                stream.start()
        else:
            start, state = saved.position, saved.state
            self.rows = [UnitRow(**row) for row in state["rows"]]
            self.notes = list(state["notes"])
            self.restore_blocks(state)
            if refit:
                refit.chosen = dict(state["refits"])
        places = {layer: place for place, layer in enumerate(counts.layers)}
        added = self._added_parameters(narrow, places)
        self.begin_blocks(start, len(streamed))
        for index, tensors in streamed.read_blocks(range(start, len(streamed)), "removing from blocks"):
            self.pass_dense_block(index, tensors)
            costs: Mapping[KindName, float] = {}
            if index in places:
                place = places[index]
                left, costs = self._remaining_tensors(index, place, tensors, narrow, choice, refit)
                tensors.clear()  # the pruned tensors may be copies
                block = narrow.fill_block(place, left, plan.dtype)
                for stream in pruned:
                    stream.advance(block, place)
                narrow.empty_block(place)
                if paired:
                    paired.advance_pruned(place, left)
                prefix = narrow.block_prefix(place)
                named = {f"{prefix}.{name}": left.pop(name) for name in [*left]}
                self.save_block(index, named)
                named.clear()
            else:
                if paired:
                    paired.skip_layer(index, tensors)
                for stream in pruned:
                    stream.skip_block()
            self.rows += self.rows_of(index, counts, costs)
            refits = refit.chosen if refit else {}
            state = {
                "rows": [asdict(row) for row in self.rows],
                "notes": self.notes,
                "refits": refits,
                **self.block_state,
            }
            self.save(index + 1, state)
            self.report_block(index + 1, len(streamed), [row for row in self.rows if row.layer == index])
        self.progress.stage("evaluate")
        if refit:
            self.notes.append(refit.summary)
        removed = sum(row.removed_parameters for row in self.rows) - added
        self.measure_dense()
        return PruneResult(
            layers=self.rows,
            sparsities=(),
            removed=removed,
            prunable=self.structure.parameters,
            perplexity=self.measure_pruned(),
            notes=self.notes,
            files=self.store.lasting(BLOCK),
            unchanged=self.stored(streamed.outer_names),
            config=raw,
            verification=self.write_verification(),
            resumed_from=start,
            refits=refit.chosen if refit else {},
            sections=self.sections,
            micro_batches=self.micro_batch_history,
            worth=counts.worth,
        )

    def _remaining_tensors(
        self,
        index: int,
        place: int,
        tensors: dict[str, Tensor],
        narrow: StreamedModel,
        choice: BlockChoice,
        refit: UnitRefit | None,
    ) -> tuple[dict[str, Tensor], Mapping[KindName, float]]:
        """Return the remaining tensors of a block that stays, and the cost of its lost units where known."""
        family = self.folder.family
        unit_sets = layer_unit_sets(family, self.structure, index, self.kinds)
        complete = with_biases(family, tensors, narrow.blocks[place])
        answer = choice.prune(index, place, tensors, complete)
        self.notes += answer.notes
        left = {**self.remove(place, complete, unit_sets, answer.units), **answer.changed}
        left = self.as_stored(self.streamed.block_prefix(index), left)
        if refit:
            left = refit.fit(RemainingLayer(index, place, tensors, left, unit_sets, answer.units))
        self.record_block(index, answer, refit)
        return left, answer.costs

    def _paired_streams(self, counts: UnitCounts, narrow: StreamedModel) -> PairedStreams | None:
        """Return the streams of calibration tokens that the method or a refit reads; None where neither reads any."""
        reads, tokens, dtype = self.plan.method.reads, self.calibration_tokens, self.plan.forward_dtype
        if tokens is None or (reads == "none" and self.plan.compensation is None):
            return None
        dense = self.stream("dense-calibration", tokens, self.streamed, dtype)
        is_read = reads == "pruned" or self.plan.compensation is not None
        pruned = self.stream("calibration", tokens, narrow, dtype) if is_read else None
        return PairedStreams(self.streamed, dense, GapPassing(dense, self.streamed, counts.layers), narrow, pruned)

    def _refit(self, paired: PairedStreams | None) -> UnitRefit | None:
        compensation = self.plan.compensation
        if compensation is None or paired is None:
            return None
        kind = ExpertRefit if self.fits_experts and self.folder.family.experts is not None else UnitRefit
        return kind(compensation, paired, self.notes.append)

    def _added_parameters(self, narrow: StreamedModel, places: Mapping[int, int]) -> int:
        """Return the number of parameters that the layers gain over the source's."""
        return sum(
            parameter.numel()
            for index, place in places.items()
            for name, parameter in narrow.blocks[place].named_parameters()
            if f"{self.streamed.block_prefix(index)}.{name}" not in self.folder.tensors
        )
