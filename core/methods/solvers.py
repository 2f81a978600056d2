"""Solvers that make weights zero: random, magnitude (2015), Wanda (2023), SparseGPT (2023) and ADMM (2024).

The first three only score weights; the others also solve for the weights that stay.

W [out_features, in_features] are a layer's weights, X [tokens, in_features] its inputs on the calibration tokens.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.engine.models.precision import bfloat16_matmul
from core.engine.options.axes import MethodParameters
from core.engine.pruning.compensation.column_update import Columns, damped_inverse_factor
from core.engine.pruning.grid import QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import LayerTarget, removal_mask
from core.engine.pruning.solver import PrunableLinear, Quantiser, ScoreSolver, Solver
from core.methods.descriptions.zeros import (
    ADMMParameters,
    MagnitudeParameters,
    RandomParameters,
    SparseGPTParameters,
    WandaParameters,
)

_RAMP = 0.75
"""Share of the iterations over which sparsity rises to its target, by a cubic schedule."""
_SAMPLE = 2**13
"""Number of weights that are sampled to estimate the threshold of an iteration."""


class Unchanged(Solver):
    """Solver that leaves every weight as it is: the pass measures the model and counts its zeros.

    With `none` this is the dense model that pruned ones are compared with at the same size, as Blalock 2020
    (arXiv:2003.03033) asks for. With `recover` the model is trained afterwards, with adapters (Hu 2021,
    arXiv:2106.09685) or a teacher (Hinton 2015, arXiv:1503.02531). With `vocabulary` tokens that texts do not use went
    before the pass (Abdaoui, Pradel, Sigel 2020, arXiv:2010.05609).
    """

    def __init__(self, parameters: MethodParameters) -> None: ...

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        return [linear.weight_OI for linear in linears]


class Random(ScoreSolver):
    """Random pruning, the baseline (Liu 2022, arXiv:2202.02643): scores from U[0, 1), compared in a tensor.

    They are seeded by the job's seed and the layer's index, and the same on every device.
    """

    def __init__(self, parameters: RandomParameters) -> None:
        self.seed = parameters.seed

    def score(self, linear: PrunableLinear, inputs: InputStatistic) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + linear.index)
        return torch.rand(linear.weight_OI.shape, generator=generator).to(linear.weight_OI.device)


class Magnitude(ScoreSolver):
    """Magnitude pruning (Han, Pool, Tran, Dally 2015, arXiv:1506.02626): score |W_ij|.

    It is compared within a row, a tensor or the entire model; there the targets hold the model's counts.
    """

    def __init__(self, parameters: MagnitudeParameters) -> None:
        self.by_row = parameters.scope == "row"

    def score(self, linear: PrunableLinear, inputs: InputStatistic) -> Tensor:
        return linear.weight_OI.abs()


class Wanda(ScoreSolver):
    """Wanda (Sun, Liu, Bair, Kolter 2023, arXiv:2306.11695): score |W_ij|·‖X_j‖₂ (eq. 1).

    The lowest s·in_features of every output row are removed (algorithm 1). The variant compares the rows with one
    another by the cumulative share of their scores.
    """

    statistic = Statistic.NORMS

    def __init__(self, parameters: WandaParameters) -> None:
        self.variant = parameters.variant
        self.by_row = not self.variant

    def score(self, linear: PrunableLinear, inputs: InputStatistic) -> Tensor:
        score_OI = linear.weight_OI.abs() * inputs.norms_I
        return cumulative_row_share(score_OI) if self.variant and not linear.target.pattern.is_n_m else score_OI


def cumulative_row_share(score_OI: Tensor) -> Tensor:
    """Return the share of its row's total score that each weight and all lower ones hold together.

    Wanda's variant keeps, in every row, the weights above a threshold α on this share, and bisects α until the tensor's
    sparsity is met. The k lowest shares of the tensor give exactly that threshold.
    """
    ordered_OI, order_OI = score_OI.sort(dim=1, stable=True)
    cumulative_OI = ordered_OI.cumsum(dim=1, dtype=torch.float64)
    total_O1 = cumulative_OI[:, -1:].clamp(min=torch.finfo(torch.float64).tiny)
    return torch.empty_like(cumulative_OI).scatter_(1, order_OI, cumulative_OI / total_O1)


class SparseGPT(Solver):
    """SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774): pruning by columns, with updates of the later ones.

    With damped H = 2XᵀX / tokens and UᵀU = H⁻¹, masks are by w²/U_jj², and updates by algorithm 1. A quantised model is
    rounded in the same pass over the columns (section 3.5).
    """

    statistic = Statistic.GRAM

    def __init__(self, parameters: SparseGPTParameters) -> None:
        self.block_size = parameters.block_size
        self.damping = parameters.damping

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        return self._prune(linears, inputs, note).weights

    def prune_and_round(
        self,
        linears: Sequence[PrunableLinear],
        inputs: InputStatistic,
        rounding: Quantiser,
        note: Callable[[str], None],
    ) -> list[QuantisedWeight]:
        if not rounding.spreads_errors:
            return super().prune_and_round(linears, inputs, rounding, note)
        return self._prune(linears, inputs, note, rounding).quantised

    def _prune(
        self,
        linears: Sequence[PrunableLinear],
        inputs: InputStatistic,
        note: Callable[[str], None],
        rounding: Quantiser | None = None,
    ) -> Columns:
        factor_II, dead_I = damped_inverse_factor(
            inputs.gram_II * (2 / inputs.tokens), self.damping, lambda text: note(f"{linears[0].name}: {text}")
        )
        fit, group = (None, 0) if rounding is None else (rounding.fit(inputs), rounding.group_size or 0)
        columns = Columns([linear.weight_OI for linear in linears], factor_II, fit)
        return columns.prune([linear.target for linear in linears], dead_I, block_size=max(self.block_size, group))


class ADMM(Solver):
    """ADMM (Boža 2024, arXiv:2401.02938) for the minimum of ‖X(W − Z)ᵀ‖² over sparse Z.

    Each iteration solves for V near Z, sets Z to V + U without its smallest weights, and adds V − Z to U. Inputs are
    scaled to norm 1. Therefore the smallest weights here have the lowest Wanda scores.
    """

    statistic = Statistic.GRAM

    def __init__(self, parameters: ADMMParameters) -> None:
        self.iterations = parameters.iterations
        self.penalty = parameters.penalty

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        norms_I = inputs.norms_I
        norms_I = torch.where(norms_I > 0, norms_I, 1)
        gram_II = inputs.gram_II / (norms_I * norms_I.unsqueeze(1))
        gram_II.diagonal().clamp_(min=0)
        damped_II = gram_II.clone()
        damped_II.diagonal().add_(self.penalty)
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        del damped_II
        # Inputs that are not finite make every weight NaN. The weights are checked when rows are read: a check here
        # would wait for the device.
        lower_II.masked_fill_(failed != 0, torch.nan)
        inverse_II = torch.cholesky_inverse(lower_II)
        del lower_II
        with bfloat16_matmul(gram_II.device):  # the next iteration corrects rounding errors
            return [
                self._solve(linear.weight_OI * norms_I, gram_II, inverse_II, linear.target) / norms_I
                for linear in linears
            ]

    def _solve(self, weight_OI: Tensor, gram_II: Tensor, inverse_II: Tensor, target: LayerTarget) -> Tensor:
        """Return Z for a layer whose inputs have norm 1; Z has the target's number of zeros."""
        if target.keeps_all(weight_OI.numel()):
            return weight_OI
        total = target.of_tensor(weight_OI.numel())
        wanted_OI = weight_OI @ gram_II
        sum_OI = weight_OI
        for iteration in range(1, self.iterations):
            left = max(0.0, 1 - iteration / (_RAMP * self.iterations))
            sparse_OI = _zero_smallest(sum_OI, target, round(total * (1 - left**3)))
            # `sum_OI` is V + U of the last iteration and U is V + U − Z. So Z − U equals 2Z − (V + U).
            solved_OI = torch.add(wanted_OI, 2 * sparse_OI - sum_OI, alpha=self.penalty) @ inverse_II
            sum_OI = solved_OI.add_(sum_OI).sub_(sparse_OI)
            del sparse_OI
        del wanted_OI
        return sum_OI.masked_fill(removal_mask(sum_OI.abs(), target, by_row=False), 0)


def _zero_smallest(weight_OI: Tensor, target: LayerTarget, count: int) -> Tensor:
    """Set about `count` of the smallest weights to zero; with an n:m pattern, exactly the weights that it removes.

    An approximate count is enough, because the last iteration computes the exact mask.
    """
    if target.pattern.of is not None:
        return weight_OI.masked_fill(removal_mask(weight_OI.abs(), target, by_row=False), 0)
    sample = weight_OI.reshape(-1)[:: max(1, weight_OI.numel() // _SAMPLE)].abs()
    rank = round(count / weight_OI.numel() * len(sample))
    if not rank:
        return weight_OI
    threshold = sample.kthvalue(rank).values  # stays on the device
    return weight_OI.masked_fill(weight_OI.abs() <= threshold, 0)
