"""Sensitivity of a language model (Han 2015, arXiv:1506.02626): the loss when one layer alone is pruned, at each rate.

The pass goes over the blocks once and carries the dense hidden states before block i along. It prunes block i at every
rate, with input statistics of the dense calibration forward. Then only the blocks from i on run again: on average (L +
1)/2 of L blocks for each point. Memory holds embeddings and head, one block with its statistics, and the activation
budget. Later blocks stay in memory if they fit in that budget; the others are read again for each layer.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.evaluation.perplexity import perplexity
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import fast_arithmetic
from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import to_out_in
from core.engine.options.sensitivity import SensitivityCurve, SensitivityPoint
from core.engine.pruning.block_pass import BlockPass
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import LayerTarget
from core.engine.pruning.plan import LayerwisePlan, model_facts
from core.engine.pruning.solver import PrunableLinear
from core.engine.pruning.streams.measure import pairs
from core.engine.pruning.streams.propagation import BlockPropagation, InputGroup, input_groups
from core.engine.pruning.streams.stream import Stream
from core.engine.resume.store import ResumeStore, Runtime, fingerprint
from secateur_wire.base import JsonObject
from secateur_wire.errors import RunFailed

_VARIANTS = "variants"


@dataclass(frozen=True)
class SensitivityPlan:
    """Rates and scope of the measurement; `pruning` is the plan of the measured method at the highest rate."""

    pruning: LayerwisePlan
    rates: tuple[float, ...]
    scope: Literal["layer", "module"]

    @property
    def dtype(self) -> torch.dtype:
        return self.pruning.dtype

    @property
    def forward_dtype(self) -> torch.dtype:
        return self.pruning.forward_dtype

    @property
    def device(self) -> torch.device:
        return self.pruning.device

    def micro_batch(self, length: int) -> int:
        return self.pruning.micro_batch(length)

    def fingerprint(self, folder: ModelFolder, revision: str, tokens: dict[str, Tensor]) -> str:
        facts = {
            "method": self.pruning.method_id,
            "pattern": self.pruning.pattern.text,
            "rates": self.rates,
            "scope": self.scope,
            "parameters": self.pruning.parameters.model_dump(mode="json"),
            **model_facts(folder, revision, tokens),
        }
        return fingerprint("sensitivity", facts, Runtime.of(self.device, self.forward_dtype))


@dataclass(frozen=True)
class SensitivityResult:
    """Curves of all layers; `dense` is the model at rate 0.

    `resumed_from` is the number of layers that an earlier attempt measured. `micro_batches` is the history of
    micro-batch sizes, which shrink when memory runs out.
    """

    dense: SensitivityPoint
    curves: list[SensitivityCurve]
    notes: list[str]
    resumed_from: int
    micro_batches: Sequence[JsonObject]


@dataclass(frozen=True)
class _Variant:
    """Stream of the evaluation tokens through the model in which only `unit` is pruned, at `rate`."""

    unit: str
    rate: float
    sparsity: float
    stream: Stream


class SensitivityPass(BlockPass):
    """Pass that measures sensitivity.

    `setting` are the keyword arguments of `BlockPass`, with one evaluation set.
    """

    def __init__(self, folder: ModelFolder, plan: SensitivityPlan, **setting: Any) -> None:
        super().__init__(folder, plan, **setting)
        self.plan = plan
        self.method = plan.pruning.method
        self.streamed = StreamedModel(folder, dtype=plan.dtype, device=plan.device)
        (tokens_NT,) = self.evaluations.values()
        self._tokens_NT = tokens_NT
        self.dense = self.stream("dense", tokens_NT, self.streamed, plan.dtype)
        reads_inputs = self.method.statistic is not Statistic.NONE
        self.calibration = (
            self.stream("calibration", self.calibration_tokens, self.streamed, plan.forward_dtype)
            if reads_inputs and self.calibration_tokens is not None
            else None
        )
        self.curves: list[SensitivityCurve] = []
        assert self.calibration or not reads_inputs, "the method reads inputs, and there are none"
        self._by_module = {linear.name: (index, linear) for index, linear in enumerate(plan.pruning.linears)}
        self._spilled = ResumeStore(self.work / _VARIANTS, "")
        self._held: set[int] = set()
        self._room = self._room_for_blocks()

    @property
    def streams(self) -> list[Stream]:
        return [self.dense] if self.calibration is None else [self.calibration, self.dense]

    @torch.inference_mode()
    def run(self) -> SensitivityResult:
        """Measure all layers, one after the other; raises a kind of UnusableModel for tensors that cannot be used."""
        with fast_arithmetic(self.plan.device):
            blocks = len(self.streamed)
            start = self._resume()
            if start == 0:
                for stream in self.streams:
                    stream.start()
            self.progress.stage("evaluate")
            self.progress.begin_part(_share_done(start, blocks), 1.0)
            for index in counted(range(start, blocks), "measuring layers"):
                self._layer(index)
                state = {"curves": [curve.model_dump() for curve in self.curves], "notes": self.notes}
                self.save(index + 1, state)
                self.progress.advance(_share_done(index + 1, blocks), index + 1, blocks)
                self.progress.raise_if_stopped()
            dense = self._measured(self.dense)
            return SensitivityResult(
                dense=SensitivityPoint(rate=0, sparsity=0, loss=math.log(dense), perplexity=dense, ratio=1.0),
                curves=[_with_ratios(curve, dense) for curve in self.curves],
                notes=self.notes,
                resumed_from=start,
                micro_batches=self.micro_batch_history,
            )

    def _resume(self) -> int:
        saved = self.resume(self.streams, len(self.streamed))
        if saved is None:
            return 0
        self.curves = [SensitivityCurve.model_validate(curve) for curve in saved.state["curves"]]
        self.notes = list(saved.state["notes"])
        return saved.position

    def _layer(self, index: int) -> None:
        """Measure block `index`, then advance the dense streams through it."""
        streamed, plan = self.streamed, self.plan
        self._held.discard(index)  # it is pruned now, and not run dense again
        tensors = streamed.read_block(index)
        groups = input_groups(self.folder.family.inputs, self._by_module, f"{streamed.block_prefix(index)}.")
        statistics = self._statistics(index, tensors, groups)
        block = streamed.fill_block(index, tensors, plan.dtype)
        variants = []
        for rate in plan.rates:
            variants += [
                self._variant(index, block, tensors, unit, pruned, rate)
                for unit, pruned in self._pruned(index, tensors, statistics, rate).items()
            ]
        self.dense.advance(block, index)
        streamed.empty_block(index)
        for later in counted(range(index + 1, len(streamed)), "blocks behind it"):
            block = self._later_block(later)
            for variant in variants:
                variant.stream.advance(block, later)
            if later not in self._held:
                streamed.empty_block(later)
        self._record(index, variants)

    def _statistics(
        self, index: int, tensors: dict[str, Tensor], groups: Sequence[InputGroup]
    ) -> dict[InputGroup, InputStatistic]:
        """Collect statistics of every group from a dense forward of the calibration tokens; advance these tokens."""
        level = self.method.statistic
        if self.calibration is None:
            return {group: InputStatistic(level, sample_stride=1) for group in groups}
        block = self.streamed.fill_block(index, tensors, self.calibration.dtype)
        stride = self.calibration.token_count  # the statistics need no sampled rows
        statistics = BlockPropagation(
            block, index, self.calibration, groups, lambda: InputStatistic(level, sample_stride=stride)
        ).collect()
        self.calibration.advance(block, index)
        return statistics

    def _pruned(
        self, index: int, tensors: dict[str, Tensor], statistics: dict[InputGroup, InputStatistic], rate: float
    ) -> dict[str, dict[str, Tensor]]:
        """Return the weights of each unit that is pruned alone, by its full name and their names in the block.

        They are pruned at a rate, rounded, and laid out as stored.
        """
        prefix, pattern = self.streamed.block_prefix(index), self.plan.pruning.pattern
        pruned: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for group, statistic in statistics.items():
            stored = [tensors[f"{name}.weight"] for name in group.linears]
            names = [f"{prefix}.{name}" for name in group.linears]
            linears = [
                PrunableLinear(
                    name,
                    self._by_module[name][0],
                    to_out_in(weight, self.folder.family).float(),
                    LayerTarget(pattern, rate),
                )
                for name, weight in zip(names, stored, strict=True)
            ]
            pruned_weights = self.method.prune(linears, statistic, self._note_once)
            for name, weight_OI, before in zip(group.linears, pruned_weights, stored, strict=True):
                unit = prefix if self.plan.scope == "layer" else f"{prefix}.{name}"
                weight = to_out_in(weight_OI.to(before.dtype), self.folder.family).contiguous()
                pruned[unit][f"{name}.weight"] = weight
        return pruned

    def _variant(
        self,
        index: int,
        block: nn.Module,
        tensors: dict[str, Tensor],
        unit: str,
        pruned: dict[str, Tensor],
        rate: float,
    ) -> _Variant:
        """Run the dense stream through the block with the pruned weights, then restore the dense ones."""
        stream = Stream(
            f"{unit}-{rate:g}",
            self._tokens_NT,
            self.streamed,
            self._spilled,
            self.budget,
            dtype=self.plan.dtype,
            micro_batch=self.micro_batches.size(self._tokens_NT.shape),
            resumable=False,
        )
        self.streamed.fill_block(index, pruned, self.plan.dtype)
        stream.advance_from(self.dense, block, index)
        self.streamed.fill_block(index, {name: tensors[name] for name in pruned}, self.plan.dtype)
        counts = [torch.stack([(weight == 0).sum(), (~weight.isfinite()).sum()]) for weight in pruned.values()]
        figures = torch.stack(counts).tolist()  # one synchronisation with the device
        if any(not_finite for _, not_finite in figures):
            raise RunFailed(f"{unit}: its inputs are infinite or not a number, so there is nothing to solve for")
        zeros = sum(each for each, _ in figures)
        return _Variant(unit, rate, zeros / sum(weight.numel() for weight in pruned.values()), stream)

    def _later_block(self, index: int) -> nn.Module:
        """Return a dense block after the pruned one; a block that is read stays in memory if there is room."""
        block: nn.Module = self.streamed.blocks[index]
        if index not in self._held:
            tensors = self.streamed.read_block(index)
            block = self.streamed.fill_block(index, tensors, self.plan.dtype)
            size = sum(weight.numel() for weight in tensors.values()) * self.plan.dtype.itemsize
            if len(self._held) * size + size <= self._room:
                self._held.add(index)
        return block

    def _room_for_blocks(self) -> int:
        """Return the bytes of the activation budget that the streams of a layer do not use."""
        widest = len(self.plan.rates)
        if self.plan.scope == "module":
            widest *= max(1, len(self.plan.pruning.linears) // len(self.streamed))
        tokens = self.dense.token_count * (1 + widest)
        if self.calibration is not None:
            tokens += self.calibration.token_count
        return self.budget.limit - tokens * self.folder.description.hidden_size * self.plan.dtype.itemsize

    def _record(self, index: int, variants: Sequence[_Variant]) -> None:
        """Add the curves of a layer, in the order of the units, from streams that have passed all blocks."""
        points: dict[str, list[SensitivityPoint]] = {}
        for variant in variants:
            measured = self._measured(variant.stream)
            point = SensitivityPoint(
                rate=variant.rate, sparsity=variant.sparsity, loss=math.log(measured), perplexity=measured
            )
            points.setdefault(variant.unit, []).append(point)
            variant.stream.close()
        for unit, unit_points in points.items():
            weights = sum(
                linear.numel
                for name, (_, linear) in self._by_module.items()
                if name == unit or name.startswith(f"{unit}.")
            )
            self.curves.append(SensitivityCurve(name=unit, layer=index, weights=weights, points=unit_points))

    def _measured(self, stream: Stream) -> float:
        return perplexity(self.streamed, pairs(stream))

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _share_done(done: int, blocks: int) -> float:
    """Return the share of the work in the first `done` layers; the layer at position i runs L − i of L blocks."""
    left = blocks - done
    return 1 - left * (left + 1) / (blocks * (blocks + 1))


def _with_ratios(curve: SensitivityCurve, dense: float) -> SensitivityCurve:
    """Return a curve with the ratio of every perplexity to the dense model's."""
    points = [
        point.model_copy(update={"ratio": point.perplexity / dense}) for point in curve.points if point.perplexity
    ]
    return curve.model_copy(update={"points": points})
