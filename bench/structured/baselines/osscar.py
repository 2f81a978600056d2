"""OSSCAR-like: the channels that stay are a combinatorial choice, improved by local search on the layer's least squares
(Meng 2024, arXiv:2403.12983). Its target is each layer's own output; every layer keeps as many channels.
"""

import torch
from torch import Tensor

from bench.structured.baselines.least_squares import damped, error, inverse, refit, remove_in_groups

ROUNDS = 20
GROUP = 32


def choose(weight: Tensor, moments: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The channels of a down projection [out, channels] that stay, and its weights then."""
    hessian = damped(moments)
    start = remove_in_groups(weight, hessian, weight.shape[1] - kept, GROUP, GROUP)
    left, _ = local_search(weight, hessian, start)
    return left, refit(weight, hessian, left)


def local_search(weight: Tensor, hessian: Tensor, kept: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, list[float]]:
    """Swap channels as long as the error of the best fit falls; the choice, and its error after each round, the first
    before any.

    Of a choice S with the fit V, the j in S costs least whose ‖v_j‖²/[(H_SS)⁻¹]_jj is least; the k outside wins most
    whose ‖g_k‖²/(H_kk − H_kS(H_SS)⁻¹H_Sk) is largest, g = (W − V)H. Several are swapped at once, half as many where
    that does not help.
    """
    kept = kept.sort().values
    fitted = refit(weight, hessian, kept)
    errors = [error(weight, hessian, fitted)]
    size = max(1, len(kept) // 16)
    while size and len(errors) <= rounds:
        leave, enter = _swaps(weight, hessian, kept, fitted, size)
        if not len(leave):
            break
        stay = torch.zeros(weight.shape[1], dtype=torch.bool)
        stay[kept] = True
        stay[leave] = False
        stay[enter] = True
        candidate = stay.nonzero()[:, 0]
        refitted = refit(weight, hessian, candidate)
        reached = error(weight, hessian, refitted)
        if reached < errors[-1]:
            kept, fitted = candidate, refitted
            errors.append(reached)
        else:
            size //= 2
    return kept, errors


def _swaps(weight: Tensor, hessian: Tensor, kept: Tensor, fitted: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Up to so many channels to leave and as many to enter in their place, each pair promising less error."""
    outside = torch.ones(weight.shape[1], dtype=torch.bool)
    outside[kept] = False
    others = outside.nonzero()[:, 0]
    inverted = inverse(hessian[kept][:, kept])
    costs = fitted[:, kept].square().sum(0) / inverted.diagonal()
    across = hessian[kept][:, others]
    schur = hessian.diagonal()[others] - (across * (inverted @ across)).sum(0)
    gains = ((weight - fitted) @ hessian[:, others]).square().sum(0) / schur
    size = min(size, len(kept), len(others))
    cheapest, best = costs.argsort(stable=True)[:size], gains.argsort(descending=True, stable=True)[:size]
    pays = gains[best] > costs[cheapest]
    return kept[cheapest[pays]], others[best[pays]]
