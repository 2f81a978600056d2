"""Sensitivity of layers: a job's curves of the loss against the pruning rate, and the sparsities that follow.

Water-filling gives each layer the sparsity at which the marginal cost is equal in all layers.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal

from pydantic import BaseModel

from core.engine.architectures.description import MODEL_TASKS, ModelTask
from secateur_wire.errors import InvalidSparsity


class SensitivityPoint(BaseModel):
    """Figures of the model with one layer pruned at one rate.

    `sparsity` is the share of the layer's weights that became zero. `loss` is the mean cross-entropy in nats per token
    or image. `ratio` is the perplexity divided by the dense model's; None for classifiers.
    """

    rate: float
    sparsity: float
    loss: float
    perplexity: float | None = None
    ratio: float | None = None
    accuracy: float | None = None


class SensitivityCurve(BaseModel):
    """Curve of one layer, or one linear layer: its name, its place in the model, and its number of prunable weights."""

    name: str
    layer: int
    weights: int
    points: list[SensitivityPoint]


class Sensitivity(BaseModel):
    """Curves of a model. `dense` is the whole model at rate 0. `measured_on` names the text or images and how many."""

    task: Literal["language-model", "image-classification"]
    method: str
    pattern: str
    scope: Literal["layer", "module"]
    rates: list[float]
    measured_on: dict[str, str | int]
    dense: SensitivityPoint
    curves: list[SensitivityCurve]

    @property
    def model_task(self) -> ModelTask:
        return MODEL_TASKS[self.task]

    @property
    def is_by_layer(self) -> bool:
        """Return True if each curve is of a whole layer: all linear layers of a block, or one layer of a classifier."""
        return self.scope == "layer" or not self.model_task.has_blocks

    def increases(self, curve: SensitivityCurve) -> list[float]:
        """Return the increase of the loss over the dense model's at each point of a curve, in nats."""
        return [point.loss - self.dense.loss for point in curve.points]


@dataclass(frozen=True)
class LayerCosts:
    """Layer of `weights` prunable weights: its loss rises by `increases` nats at `rates`, ascending, others dense."""

    name: str
    weights: int
    rates: Sequence[float]
    increases: Sequence[float]


_ROUNDING = 1e-12
"""Tolerance for rounding where a sparsity is compared with the sum of the highest rates."""


def allocate(layers: Sequence[LayerCosts], sparsity: float) -> list[float]:
    """Return the rate s_l of each layer, so that Σ n_l·s_l = sparsity·Σ n_l and the marginal costs m_l(s_l) are equal.

    m_l is the loss per further weight, continuous and non-decreasing, by `_marginal_costs`. Minimising the sum of the
    predicted increases under the constraint makes all m_l(s_l) equal to one multiplier λ, except in a layer at its
    highest measured rate: beyond it nothing is known. Where m_l equals λ on a whole interval of rates, every layer
    takes the same share of its interval. Layers with equal curves get equal rates.

    Raises InvalidSparsity where the highest measured rates do not reach it.
    """
    total = sum(layer.weights for layer in layers)
    most = sum(layer.weights * layer.rates[-1] for layer in layers) / total
    if sparsity > most * (1 + _ROUNDING):
        raise InvalidSparsity(
            f"sparsity {sparsity} is more than the sensitivity job measured: at its highest rates together the layers "
            f"lose {most:.4g}; ask for less, or measure higher rates (parameters.rates)",
            param="sparsity",
        )
    costs = [_marginal_costs(layer) for layer in layers]

    def removed(rates: Sequence[float]) -> float:
        return sum(layer.weights * rate for layer, rate in zip(layers, rates, strict=True))

    def rates_at(bend: tuple[float, bool]) -> list[float]:
        multiplier, inclusive = bend
        return [_rate_at(curve, multiplier, inclusive=inclusive) for curve in costs]

    wanted = sparsity * total
    # Between two multipliers at which any m_l bends, all s_l(λ) are linear: the answer lies on one such segment.
    bends = list(product(sorted({cost for curve in costs for _, cost in curve}), (False, True)))
    first = bisect_left(bends, wanted, key=lambda bend: removed(rates_at(bend)))
    if first == len(bends):
        return rates_at(bends[-1])  # all at their highest rate; the sum may differ from the requested one by rounding
    before = rates_at(bends[first - 1]) if first else [0.0] * len(layers)
    after = rates_at(bends[first])
    gained = removed(after) - removed(before)
    share = (wanted - removed(before)) / gained if gained > 0 else 0.0
    return [low + share * (high - low) for low, high in zip(before, after, strict=True)]


def _marginal_costs(layer: LayerCosts) -> list[tuple[float, float]]:
    """Return the points (rate, nats per weight) between which m_l is linear, both ascending.

    m_l is zero at rate 0. At the midpoint of two rates it is the slope there of the lower convex envelope of the
    increases; the last segment extends to the last rate. Increases below zero are noise and count as 0: the envelope
    begins at (0, 0) and never falls.
    """
    measured = [(0.0, 0.0), *zip(layer.rates, (max(0.0, each) for each in layer.increases), strict=True)]
    hull = measured[:1]
    for point in measured[1:]:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    knots = [(0.0, 0.0)]
    for (before, _), (rate, _) in pairwise(measured):
        slope = next(_slope(left, right) for left, right in pairwise(hull) if rate <= right[0])
        knots.append(((before + rate) / 2, slope / layer.weights))
    last = layer.rates[-1]
    return [*knots, (last, knots[-1][1] + _slope(knots[-2], knots[-1]) * (last - knots[-1][0]))]


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])


def _rate_at(curve: Sequence[tuple[float, float]], cost: float, *, inclusive: bool) -> float:
    """Return the highest rate whose marginal cost is below `cost`, or, with `inclusive`, at most `cost`."""
    rate = 0.0
    for left, right in pairwise(curve):
        if right[1] < cost or (inclusive and right[1] == cost):
            rate = right[0]
        elif left[1] < cost or (inclusive and left[1] == cost):
            rise = right[1] - left[1]
            return left[0] + (right[0] - left[0]) * (cost - left[1]) / rise if rise > 0 else left[0]
        else:
            break
    return rate
