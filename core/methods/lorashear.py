"""LoRAShear (Chen, Ding, Yadav, Zharkov, Liang 2023, arXiv:2310.18356): knowledge transfer before removal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.counting import counted
from core.engine.architectures.units import KindName
from core.engine.evaluation.perplexity import perplexity
from core.engine.models.streamed import call_block
from core.engine.pruning.schedule import COOL_DOWN, WARM_UP
from core.engine.pruning.streams.stream import RecordedArguments
from core.engine.pruning.units.method import UnitSelectionContext
from core.engine.pruning.units.removal import UnitSet, kept_mask
from core.engine.pruning.units.unit_slices import UnitSlice
from core.engine.recovery.adapters import MaskedLoraLinear
from core.methods.adapter_model import (
    AdapterMethod,
    AdapterModel,
    RemovalSchedule,
    UnitScores,
    effective_weight,
    estimated_gradient,
)
from core.methods.descriptions.structured import LoRAShearParameters

_MOMENTUM = 0.9


class LoRAShear(AdapterMethod):
    """Removal by half-space projection; the groups that hold the most knowledge are exempt.

    The damage of removing each bundle of groups is measured first; the most damaging bundles are exempt. Of the other
    groups, each layer removes those with the least |ĝ ⊙ (W + scale·BA)|: half-space projection shrinks them to zero, in
    periods, while adapters are trained on the groups that stay.
    """

    parameters: LoRAShearParameters

    def schedule(self, context: UnitSelectionContext, adapter_model: AdapterModel) -> RemovalSchedule:
        exempt = self._exempt(context, adapter_model) if self.parameters.exempt else []
        return HalfSpaceSchedule(context, adapter_model, self.parameters, exempt)

    def _exempt(self, context: UnitSelectionContext, adapter_model: AdapterModel) -> list["UnitBundle"]:
        assert context.calibration is not None
        probed = context.calibration[: max(1, self.parameters.probed_tokens // context.calibration.shape[1])]
        bundles = bundle_damage(context, adapter_model, probed, self.parameters.most_bundles)
        exempt = most_damaging(bundles, self.parameters.exempt)
        worst = max(bundles, key=lambda each: each.damage)
        context.log(
            f"of {len(bundles)} bundles of heads and channels {len(exempt)} are exempt; without the costliest, "
            f"{len(worst.units)} {worst.kind} of layer {worst.layer}, the loss rises by {worst.damage:.3f}"
        )
        return exempt


@dataclass(frozen=True)
class UnitBundle:
    """Groups of one kind in a layer, by index; `damage` is the rise of the loss without them, in nats per token."""

    layer: int
    kind: KindName
    units: tuple[int, ...]
    damage: float


@torch.inference_mode()
def bundle_damage(
    context: UnitSelectionContext, adapter_model: AdapterModel, tokens_NT: Tensor, most: int
) -> list[UnitBundle]:
    """Measure the damage of every bundle on token ids [sequences, time] (section 3.2, knowledge distribution).

    The groups of one kind in a layer are sorted by the L2 norm of their weights and divided into `most` bundles, or
    into as many bundles as there are groups. The hidden states before a layer are stored, so that only the masked layer
    and the layers after it run again.
    """
    streamed, dtype = context.streamed, adapter_model.dtype
    tokens = list(tokens_NT.split(context.micro_batch))
    arguments = RecordedArguments(streamed, dtype)
    norms = adapter_model.unit_sums(lambda linear: effective_weight(linear).square(), normalised=False)

    def run(tokens_BT: Tensor, hidden: Tensor, layers: range) -> Tensor:
        for layer in layers:
            hidden = call_block(adapter_model.blocks[layer], hidden, arguments.of(tokens_BT)[layer])
        return hidden

    def loss(start: int) -> float:
        ends = (run(*each, range(start, context.layers)) for each in zip(tokens, hidden, strict=True))
        return math.log(perplexity(streamed, zip(tokens, ends, strict=True)))

    bundles = []
    hidden = [streamed.embed(each).to(dtype) for each in tokens]
    dense_loss = loss(0)
    for layer, unit_sets in enumerate(counted(adapter_model.unit_sets, "measuring what layers know")):
        for each in unit_sets:
            order = norms[layer][each.kind].argsort()
            for part in order.tensor_split(min(most, each.units)):
                kept_U = torch.ones(each.units, dtype=torch.bool)
                kept_U[part] = False
                adapter_model.keep(layer, each.kind, kept_U)
                damage = loss(layer) - dense_loss
                bundles.append(UnitBundle(layer, each.kind, tuple(sorted(part.tolist())), damage))
            adapter_model.keep(layer, each.kind, torch.ones(each.units, dtype=torch.bool))
        hidden = [run(*each, range(layer, layer + 1)) for each in zip(tokens, hidden, strict=True)]
    return bundles


def most_damaging(bundles: Sequence[UnitBundle], share: float) -> list[UnitBundle]:
    """Return the given share, rounded up, of the most damaging bundles of each kind in each layer.

    As all layers must keep the same numbers of groups, no layer can be exempt as a whole.
    """
    rivals: dict[tuple[int, KindName], list[UnitBundle]] = {}
    for each in bundles:
        rivals.setdefault((each.layer, each.kind), []).append(each)
    return [
        each
        for those in rivals.values()
        for each in sorted(those, key=lambda one: -one.damage)[: math.ceil(share * len(those))]
    ]


class HalfSpaceSchedule(RemovalSchedule):
    """LHSPG (section 3.3): redundant groups are picked in periods, and half-space projections shrink them to zero.

    Each period picks an equal part of all groups to be removed, by the adapters' |ĝ ⊙ (W + scale·BA)|. Everything else
    is trained meanwhile. The picked groups shrink linearly, weights and adapters together. A group becomes zero when a
    step would leave the half-space, at the latest at the end of the period. `exempt` groups are picked only if no
    others are left.

    `kept` are the groups kept so far, without those that are shrinking. A tenth of the steps comes before the first
    period, to collect scores, and another tenth after the last.
    """

    def __init__(
        self,
        context: UnitSelectionContext,
        adapter_model: AdapterModel,
        parameters: LoRAShearParameters,
        exempt: Sequence[UnitBundle],
    ) -> None:
        super().__init__(context, adapter_model, _MOMENTUM)
        steps, periods = adapter_model.steps, parameters.periods
        first, last = math.floor(WARM_UP * steps), math.floor((1 - COOL_DOWN) * steps)
        self._starts = [first + period * (last - first) // periods for period in range(periods + 1)]
        self._epsilon, self._exempt = parameters.epsilon, exempt
        self._factors: dict[MaskedLoraLinear, tuple[Tensor, Tensor]] = {}
        self._lengths: dict[tuple[int, KindName], Tensor] = {}

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        self.add(self._adapter_model.unit_sums(importance, normalised=True))
        self._factors = {
            each: (A.clone(), B.clone()) for each in self._adapter_model.linears() for A, B in [each.factors]
        }
        if step in self._starts[:-1]:
            self._pick(self._starts.index(step))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for layer, unit_sets in enumerate(self._adapter_model.unit_sets):
            for each in unit_sets:
                if (layer, each.kind) in self._lengths and bool(self._lengths[layer, each.kind].any()):
                    self._shrink(layer, each)
        if step + 1 in self._starts[1:]:
            self._lengths.clear()
            self._adapter_model.keep_only(self.kept)

    def _pick(self, period: int) -> None:
        """Choose the groups of this period, and the length of the steps that shrink each of them to zero."""
        earlier = self.kept
        self.keep_highest(self._preferring_exempt(), (period + 1) / (len(self._starts) - 1))
        steps = self._starts[period + 1] - self._starts[period]
        for layer, unit_sets in enumerate(self._adapter_model.unit_sets):
            for each in unit_sets:
                goes_U = ~kept_mask(self.kept.layers[layer].get(each.kind), each.units)
                if earlier.layers:
                    goes_U &= kept_mask(earlier.layers[layer].get(each.kind), each.units)
                units = goes_U.nonzero().flatten()
                if len(units):
                    norm2_K, _ = self._products(layer, each, units)
                    self._lengths[layer, each.kind] = torch.zeros(each.units).index_copy(
                        0, units, norm2_K.sqrt() / steps
                    )

    def _preferring_exempt(self) -> UnitScores:
        scores = [dict(layer) for layer in self.scores]
        for each in self._exempt:
            score_U = scores[each.layer][each.kind].clone()
            score_U[list(each.units)] += self.scores[each.layer][each.kind].max() + 1
            scores[each.layer][each.kind] = score_U
        return scores

    def _shrink(self, layer: int, unit_set: UnitSet) -> None:
        length_U = self._lengths[layer, unit_set.kind]
        units = length_U.nonzero().flatten()
        zero_K, share_K = half_space_step(*self._products(layer, unit_set, units), length_U[units], self._epsilon)
        for unit_slice in unit_set.slices:
            weight, part = self._adapter_model.weight(layer, unit_slice), replace(unit_slice, units=len(units))
            if weight is not None:
                before, _ = self._before_and_after(layer, unit_slice, units)
                share_F = part.spread(share_K.to(weight.device), unowned=0.0)
                lost = before * (share_F if weight.dim() == 1 else share_F.unsqueeze(1 - unit_slice.dimension))
                weight.index_add_(
                    unit_slice.dimension, unit_slice.features(units).to(weight.device), -lost.to(weight.dtype)
                )
        zero_U = torch.zeros_like(length_U, dtype=torch.bool).index_copy(0, units, zero_K)
        self._adapter_model.drop(layer, unit_set.kind, zero_U)
        self._lengths[layer, unit_set.kind] = length_U.masked_fill(zero_U, 0)

    def _products(self, layer: int, unit_set: UnitSet, units: Tensor) -> tuple[Tensor, Tensor]:
        """Return ‖x‖² and ⟨x⁺, x⟩ for groups x, x⁺ after the optimiser's step: [len(units)] each, on the CPU."""
        norm2_K, dot_K = torch.zeros(len(units)), torch.zeros(len(units))
        for unit_slice in unit_set.slices:
            if self._adapter_model.weight(layer, unit_slice) is not None:
                before, after = self._before_and_after(layer, unit_slice, units)
                part = replace(unit_slice, units=len(units))
                norm2_K += part.per_unit(part.per_feature(before.square())).cpu()
                dot_K += part.per_unit(part.per_feature(before * after)).cpu()
        return norm2_K, dot_K

    def _before_and_after(self, layer: int, unit_slice: UnitSlice, units: Tensor) -> tuple[Tensor, Tensor]:
        """Return the part of a tensor that these groups own, before and after the optimiser's step, in float32."""
        weight, linear = self._adapter_model.weight(layer, unit_slice), self._adapter_model.linear(layer, unit_slice)
        assert weight is not None
        index = unit_slice.features(units).to(weight.device)
        if linear is None:
            part = weight.index_select(unit_slice.dimension, index).float()
            return part, part
        before, after = (
            linear.effective(factors, unit_slice.dimension, index)
            for factors in (self._factors[linear], linear.factors)
        )
        return before, after


def half_space_step(norm2_U: Tensor, dot_U: Tensor, length_U: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Decide which groups [units] become zero, and by which share of its size every other group shrinks.

    x is a group, x⁺ the group after the optimiser's step, and x̂ = x⁺ − length·x/‖x‖ the full step. `norm2_U` is ‖x‖²,
    and `dot_U` is ⟨x⁺, x⟩. A group becomes zero if ⟨x̂, x⟩ < ε·‖x‖²; groups with length 0 stay as they are.
    """
    norm_U = norm2_U.sqrt()
    zero_U = (length_U > 0) & (dot_U - length_U * norm_U < epsilon * norm2_U)
    share_U = length_U / norm_U.clamp(min=torch.finfo(norm_U.dtype).tiny)
    return zero_U, share_U.masked_fill(zero_U, 0)


def importance(linear: MaskedLoraLinear) -> Tensor:
    """Return |ĝ ⊙ (W + scale·BA)| of each weight."""
    return (estimated_gradient(linear) * effective_weight(linear)).abs()
