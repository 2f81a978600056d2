"""Bonsai (Dery, Kolawole, Kagy, Smith, Neubig, Talwalkar 2024, arXiv:2402.05406): pruning with forward passes only."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from core.methods.descriptions.structured import BonsaiParameters
from secateur_wire.errors import NotFiniteWeights

_FOLDS = 5
_PENALTIES = {"L2": (1e-3, 1e-2, 1e-1, 1.0, 10.0), "L1": (0.3, 0.1, 0.03, 0.01)}
"""Weights of the penalties: shares of the largest eigenvalue of XᵀX / n (L2), and of the smallest L1 penalty for which
all coefficients are zero.
"""
_LASSO_STEPS = 300
_LASSO_TOLERANCE = 1e-4


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
        self._streamed, self._dtype, self._micro_batch = context.streamed, context.forward_dtype, context.micro_batch
        self._arguments = RecordedArguments(context.streamed, context.forward_dtype)
        self._blocks = [
            context.streamed.fill_block(layer, context.streamed.read_block(layer), context.forward_dtype)
            for layer in range(context.layers)
        ]
        self.masks = UnitMasks(self._blocks, [context.unit_sets(layer) for layer in range(context.layers)])

    def perplexity(self, tokens_NT: Tensor, kept_U: Tensor) -> float:
        """Return the perplexity on tokens [sequences, time] with only these units kept."""
        with self.masks.masked(kept_U):
            batches = tokens_NT.split(self._micro_batch)
            return perplexity(self._streamed, ((tokens_BT, self._run(tokens_BT)) for tokens_BT in batches))

    def prior(self, tokens_NT: Tensor, kept_U: Tensor) -> tuple[Tensor, float]:
        """Return mean |W_out|·rms(activation) of each unit, and the perplexity, with only these units kept."""
        places = [self._streamed.places(each) for each in tokens_NT.split(self._micro_batch)]
        with self.masks.recorded_statistics(places) as seen:
            measured = self.perplexity(tokens_NT, kept_U)
        return self.masks.output_magnitudes(seen).double(), measured

    def _run(self, tokens_BT: Tensor) -> Tensor:
        hidden_BTD = self._streamed.embed(tokens_BT).to(self._dtype)
        for block, arguments in zip(self._blocks, self._arguments.of(tokens_BT), strict=True):
            hidden_BTD = call_block(block, hidden_BTD, arguments)
        return hidden_BTD


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
        self._sets = [(layer, each) for layer in range(len(blocks)) for each in unit_sets[layer]]
        self._sizes = [each.units for _, each in self._sets]
        self._readers = [blocks[layer].get_submodule(each.linear) for layer, each in self._sets]
        self._weights = [blocks[layer].get_parameter(each.output) for layer, each in self._sets]
        self._layers = len(blocks)

    def __len__(self) -> int:
        return sum(self._sizes)

    def split(self, values_U: Tensor) -> list[dict[KindName, Tensor]]:
        """Split a vector over all units by layer and kind."""
        split: list[dict[KindName, Tensor]] = [{} for _ in range(self._layers)]
        for (layer, each), values in zip(self._sets, values_U.split(self._sizes), strict=True):
            split[layer][each.kind] = values
        return split

    def kept_by(self, kept: KeptUnits) -> Tensor:
        """Return the mask of the units that are kept, [units]."""
        return torch.cat([kept_mask(kept.layers[layer].get(each.kind), each.units) for layer, each in self._sets])

    @contextmanager
    def masked(self, kept_U: Tensor) -> Iterator[None]:
        """Run the blocks, inside the context, as if only the kept units existed."""
        handles = []
        for place, kept in enumerate(kept_U.split(self._sizes)):
            if not kept.all():
                reading, weight = self._sets[place][1].reading_slice, self._weights[place]
                removed_F = torch.ones(weight.shape[reading.dimension], dtype=torch.bool)
                removed_F[reading.features(kept.nonzero().flatten())] = False
                handles.append(self._readers[place].register_forward_pre_hook(_zeroing(removed_F.to(weight.device))))
        with removed_after(handles):
            yield

    @contextmanager
    def recorded_statistics(self, places: Sequence[Tensor | None]) -> Iterator[list[InputStatistic]]:
        """Collect, inside the context, statistics of each reading layer's inputs; masks set before apply to them.

        `places` are the places of each micro-batch that count; None: all places.
        """
        seen = [InputStatistic(Statistic.NORMS, sample_stride=2**62) for _ in self._sets]
        handles = [
            reader.register_forward_pre_hook(_updating(statistic, iter(places)))
            for reader, statistic in zip(self._readers, seen, strict=True)
        ]
        with removed_after(handles):
            yield seen

    def output_magnitudes(self, seen: Sequence[InputStatistic]) -> Tensor:
        """Return mean |W_out|·rms(activation) of each unit, over all weights that read it: [units], on the CPU."""
        magnitudes = []
        for (_, each), weight, statistic in zip(self._sets, self._weights, seen, strict=True):
            rms_F = statistic.norms_I / statistic.tokens**0.5
            sums_U = each.reading_slice.per_unit(each.reading_slice.per_feature(weight.float().abs()) * rms_F)
            magnitudes.append((sums_U * each.units / weight.numel()).cpu())
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


@dataclass(frozen=True)
class Regression:
    """Importance of each unit, and the penalty that was chosen.

    `importance_U` is the gain in performance from keeping each unit. `tau` is Kendall's τ between the predicted and the
    measured performance of hold-out masks, averaged over the folds.
    """

    importance_U: Tensor
    penalty: str
    share: float
    tau: float


def regress(kept_NU: Tensor, performance_N: Tensor, generator: torch.Generator) -> Regression:
    """Fit performance = b + Σ β_u·kept_u over masks [masks, units]; masks 2i and 2i + 1 are complementary.

    The penalty (L1 or L2) and its weight are chosen by cross-validation: their predictions order hold-out masks best.
    The two masks of a pair are held out together, since one nearly determines the other. The returned fit uses all
    masks.

    After centring, the masks of a pair are x and −x. The squared error of both is, up to a constant, twice the squared
    error of x against half the difference of their performances. The fit therefore uses one row per pair.
    """
    X_NU, y_N = kept_NU[::2].double() - 0.5, (performance_N[::2] - performance_N[1::2]).double() / 2
    folds = torch.randperm(len(X_NU), generator=generator) % _FOLDS
    taus: dict[tuple[str, float], list[float]] = {}
    for fold in range(_FOLDS):
        holdout = folds == fold
        x_NU, measured_N = X_NU[holdout], torch.cat([performance_N[::2][holdout], performance_N[1::2][holdout]])
        for penalty, share, beta_U in _fits(X_NU[~holdout], y_N[~holdout]):
            predicted_N = x_NU @ beta_U
            tau = kendall_tau(torch.cat([predicted_N, -predicted_N]), measured_N)
            taus.setdefault((penalty, share), []).append(tau)
    average_taus = {choice: sum(each) / len(each) for choice, each in taus.items()}
    best = max(average_taus, key=lambda choice: average_taus[choice])
    importance_U = next(beta_U for penalty, share, beta_U in _fits(X_NU, y_N) if (penalty, share) == best)
    return Regression(importance_U, *best, average_taus[best])


def _fits(X_NU: Tensor, y_N: Tensor) -> Iterator[tuple[str, float, Tensor]]:
    """Yield the penalty, its share and the coefficients [units] for every penalty."""
    largest = float(torch.linalg.eigvalsh(X_NU @ X_NU.T)[-1]) / len(X_NU)
    for share in _PENALTIES["L2"]:
        yield "L2", share, ridge(X_NU, y_N, share * largest)
    silent = float((X_NU.T @ y_N).abs().max()) / len(X_NU)
    beta_U = torch.zeros_like(X_NU[0])
    for share in _PENALTIES["L1"]:
        beta_U = lasso(X_NU, y_N, share * silent, beta_U)
        yield "L1", share, beta_U


def ridge(X_NU: Tensor, y_N: Tensor, penalty: float) -> Tensor:
    """Minimise ‖y − Xβ‖² / n + penalty·‖β‖² and return β, [units]; the linear system has the size of the rows."""
    rows_NN = X_NU @ X_NU.T
    rows_NN.diagonal().add_(len(X_NU) * penalty)
    beta_U: Tensor = X_NU.T @ torch.linalg.solve(rows_NN, y_N)
    return beta_U


def lasso(X_NU: Tensor, y_N: Tensor, penalty: float, start_U: Tensor) -> Tensor:
    """Minimise ‖y − Xβ‖² / 2n + penalty·‖β‖₁ and return β, [units]; FISTA (Beck & Teboulle 2009) from `start_U`."""
    step = len(X_NU) / float(torch.linalg.eigvalsh(X_NU @ X_NU.T)[-1])
    beta_U = ahead_U = start_U
    t = 1.0
    for _ in range(_LASSO_STEPS):
        some = ahead_U.nonzero().flatten()  # after the first steps only few coefficients are nonzero
        gradient_U = X_NU.T @ (X_NU[:, some] @ ahead_U[some] - y_N) / len(X_NU)
        next_U = torch.nn.functional.softshrink(ahead_U - step * gradient_U, step * penalty)
        moved_U, beta_U = next_U - beta_U, next_U
        if moved_U.norm() <= _LASSO_TOLERANCE * beta_U.norm():
            break
        t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        ahead_U = beta_U + (before - 1) / t * moved_U
    return beta_U


def kendall_tau(first_N: Tensor, second_N: Tensor) -> float:
    """Return Kendall's τ-b of two series; 0 if either is constant."""
    first_NN = (first_N[:, None] - first_N).sign()
    second_NN = (second_N[:, None] - second_N).sign()
    untied = float(first_NN.abs().sum() * second_NN.abs().sum()) ** 0.5
    return float((first_NN * second_NN).sum()) / untied if untied else 0.0
