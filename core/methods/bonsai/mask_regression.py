"""Importance of units, by regression of the performance of masked models on their masks (Bonsai, eq. 3)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_FOLDS = 5
_PENALTIES = {"L2": (1e-3, 1e-2, 1e-1, 1.0, 10.0), "L1": (0.3, 0.1, 0.03, 0.01)}
"""Weights of the penalties: shares of the largest eigenvalue of XᵀX / n (L2), and of the smallest L1 penalty for which
all coefficients are zero.
"""
_LASSO_STEPS = 300
_LASSO_TOLERANCE = 1e-4


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
