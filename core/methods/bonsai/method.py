"""Bonsai (Dery, Kolawole, Kagy, Smith, Neubig, Talwalkar 2024, arXiv:2402.05406): pruning with forward passes only."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.architectures.unit_counts import LayerCounts, removable_parameters
from core.engine.architectures.units import KindName
from core.engine.evaluation.perplexity import perplexity
from core.engine.models.hooks import removed_after
from core.engine.models.streamed import call_block
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.streams.stream import RecordedArguments
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import KeptUnits, UnitCounts, UnitSet, kept_mask
from core.engine.pruning.units.unit_slices import UnitSlice
from core.methods.bonsai.mask_regression import regress
from core.methods.descriptions.structured import BonsaiParameters
from secateur_wire.errors import NotFiniteWeights


class Bonsai(UnitMethod):
    """Bonsai's removal in rounds; each round removes a share p of the units' parameters.

    1. The prior of a unit is mean |W_out|·rms(activation) in the model as pruned so far. In every layer, the units of
       lowest prior are candidates: twice as many units as the round removes. All other units stay and get no
       importance.
    2. Sub-models without half of the candidates are measured: performance = −perplexity. The candidates to leave out
       are drawn with probability ∝ max prior − prior. The complement of each sub-model (without the other half) is
       measured too.
    3. The importance of a candidate is its coefficient in a linear regression of performance on the kept candidates.
    4. The candidates of least importance are removed. Where importances tie (L1 sets many to zero), the candidates of
       least prior are removed.

    The entire model is in memory and runs forward only, on one micro-batch of activations at a time.
    """

    weight_reads = 1
    tries_models = True

    def __init__(self, parameters: BonsaiParameters) -> None:
        self.parameters = parameters

    @torch.inference_mode()
    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        assert context.counts is not None
        streamed = context.streamed
        generator = torch.Generator().manual_seed(self.parameters.seed)
        model = _MaskedModel(context)
        removable = sum(
            removable_parameters(context.structure, layer, context.kinds) for layer in range(context.layers)
        )
        share = sum(each.removed for each in context.counts) / removable
        rounds = math.ceil(share / self.parameters.round_share - 1e-9)
        before, kept = context.counts_at(0), context.without_layers([])
        for number in counted(range(1, rounds + 1), "rounds of removal"):
            after = context.counts_at(number / rounds)
            kept, summary = self._round(context, model, model.masks.kept_by(kept), before, after, generator)
            context.log(f"round {number} of {rounds}: {summary}")
            before = after
        for layer in range(context.layers):
            streamed.empty_block(layer)
        return context.plan_of(kept)

    def _round(
        self,
        context: UnitSelectionContext,
        model: "_MaskedModel",
        remaining_U: Tensor,
        before: Sequence[LayerCounts],
        after: Sequence[LayerCounts],
        generator: torch.Generator,
    ) -> tuple[KeptUnits, str]:
        """Run one round: reduce the remaining units, whose counts are `before`, to the counts `after`."""
        assert context.calibration is not None
        masks = model.masks

        def keep_highest(score_U: Tensor, among_U: Tensor, counts: Sequence[LayerCounts]) -> KeptUnits:
            """Keep the units of highest score; units outside `among_U` are not removed."""
            inside = score_U[among_U]
            stays_U = torch.where(remaining_U, inside.max() + 1, inside.min() - 1)
            return context.keep_highest(masks.split(torch.where(among_U, score_U, stays_U)), counts)

        drawn = torch.randperm(len(context.calibration), generator=generator)[: self.parameters.sequences]
        tokens_NT = context.calibration[drawn]
        prior_U, now = model.prior(tokens_NT, remaining_U)
        twice = [_with_double_removal(*each) for each in zip(before, after, strict=True)]
        candidates_U = remaining_U & ~masks.kept_by(keep_highest(prior_U, remaining_U, twice))
        if not candidates_U.any():
            return keep_highest(prior_U, remaining_U, after), "nothing to remove"
        weight_U = _drop_weights(masks, prior_U, candidates_U)
        kept = []
        for _ in range(self.parameters.masks_per_round // 2):
            # The lowest values of E/w, with E exponential, are draws without replacement with probability ∝ w.
            draw_U = torch.empty_like(weight_U).exponential_(generator=generator) / weight_U
            kept_U = masks.kept_by(keep_highest(draw_U, candidates_U, after))
            kept += [kept_U, torch.where(candidates_U, ~kept_U, remaining_U)]
        measured = torch.tensor(
            [-model.perplexity(tokens_NT, each) for each in counted(kept, "measuring masks")], dtype=torch.float64
        )
        if not torch.isfinite(measured).all():
            raise NotFiniteWeights("the perplexity of a masked model is not finite", param="model")
        regression = regress(torch.stack(kept)[:, candidates_U], measured, generator)
        importance_U = torch.zeros(len(masks), dtype=torch.float64)
        importance_U[candidates_U] = regression.importance_U
        summary = (
            f"perplexity {now:.3f}, {-measured.mean():.3f} on average over {len(kept)} masks of "
            f"{int(candidates_U.sum())} candidates; {regression.penalty} {regression.share:g}, "
            f"Kendall's τ {regression.tau:.2f}"
        )
        return keep_highest(_ranks(importance_U, prior_U), candidates_U, after), summary


class _MaskedModel:
    """Model with all its blocks in memory, and the masks over its units."""

    def __init__(self, context: UnitSelectionContext) -> None:
        self.context = context
        streamed, dtype = context.streamed, context.forward_dtype
        assert context.calibration is not None
        self.blocks = [streamed.fill_block(n, streamed.read_block(n), dtype) for n in range(context.layers)]
        self.arguments = RecordedArguments(streamed, dtype)
        unit_sets = [context.unit_sets(layer) for layer in range(context.layers)]
        self.masks = UnitMasks(self.blocks, unit_sets)

    def perplexity(self, tokens_NT: Tensor, kept_U: Tensor) -> float:
        with self.masks.masked(kept_U):
            batches = tokens_NT.split(self.context.micro_batch)
            return perplexity(self.context.streamed, ((tokens_BT, self._run(tokens_BT)) for tokens_BT in batches))

    def prior(self, tokens_NT: Tensor, kept_U: Tensor) -> tuple[Tensor, float]:
        """Return mean |W_out|·rms(activation) of each unit, and the perplexity, with only these units kept."""
        places = [self.context.streamed.places(each) for each in tokens_NT.split(self.context.micro_batch)]
        with self.masks.recorded_statistics(places) as seen:
            measured = self.perplexity(tokens_NT, kept_U)
        return self.masks.output_magnitudes(seen).double(), measured

    def _run(self, tokens_BT: Tensor) -> Tensor:
        hidden_BTD = self.context.streamed.embed(tokens_BT).to(self.context.forward_dtype)
        for block, arguments in zip(self.blocks, self.arguments.of(tokens_BT), strict=True):
            hidden_BTD = call_block(block, hidden_BTD, arguments)
        return hidden_BTD


@dataclass(frozen=True)
class _Reader:
    """Units of one kind of one decoder layer, with the block whose weights read them."""

    layer: int
    units: UnitSet
    block: nn.Module

    @property
    def unit_slice(self) -> UnitSlice:
        """Return the columns, by unit, of the weight that reads them."""
        return self.units.reading_slice

    @property
    def module(self) -> nn.Module:
        return self.block.get_submodule(self.unit_slice.linear)

    @property
    def weight(self) -> Tensor:
        return self.block.get_parameter(self.unit_slice.name)

    @contextmanager
    def masked(self, kept: Tensor) -> Iterator[None]:
        """Zero the units not `kept` for their reader, inside the context."""
        removed_F = torch.ones(self.weight.shape[self.unit_slice.dimension], dtype=torch.bool)
        removed_F[self.unit_slice.features(kept)] = False
        handle = self.module.register_forward_pre_hook(_zeroing(removed_F.to(self.weight.device)))
        with removed_after([handle]):
            yield


class UnitMasks:
    """Units (heads or KV groups, and channels) of all blocks as one vector [units].

    The order is layer after layer, and in a layer kind after kind as `unit_sets` lists them. Masks are boolean, True
    where a unit is kept.

    A unit's outputs are zeroed where the next linear layer reads them, so that any sub-model can run without removing
    weights. A model with masked units gives the outputs of one without them, including biases of the reading layer.
    OLMo 2's heads are an exception: its norms of queries and keys run over all heads, so that a model without some
    normalises the rest differently.
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

        `places` are the places of each micro-batch that count; None: all places.
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


def _with_double_removal(before: LayerCounts, after: LayerCounts) -> LayerCounts:
    """Return the counts that a layer would keep if the round removed twice as much."""
    units = {kind: max(0, 2 * number - before.units[kind]) for kind, number in after.units.items()}
    return LayerCounts(units, 2 * after.removed - before.removed)


def _drop_weights(masks: UnitMasks, prior_U: Tensor, candidates_U: Tensor) -> Tensor:
    """Return max prior − prior, divided by its range within each layer and kind, and at least 1e-6."""
    weights = []
    for priors, candidates in zip(masks.split(prior_U), masks.split(candidates_U), strict=True):
        for kind, prior in priors.items():
            inside = prior[candidates[kind]]
            span = float(inside.max() - inside.min()) if len(inside) else 0.0
            weights.append(((inside.max() - prior) / span).clamp(1e-6, 1) if span else torch.ones_like(prior))
    return torch.cat(weights)


def _ranks(first_U: Tensor, second_U: Tensor) -> Tensor:
    """Return the rank of each unit [units], ascending by the first values; ties are ordered by the second values."""
    order_U = second_U.argsort(stable=True)
    order_U = order_U[first_U[order_U].argsort(stable=True)]
    ranks_U = torch.empty_like(first_U)
    ranks_U[order_U] = torch.arange(len(order_U), dtype=ranks_U.dtype)
    return ranks_U
