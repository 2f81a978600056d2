"""Figures of a job for its sweep: one of each kind, and the exceeded limits."""

import math
from collections.abc import Iterable
from statistics import fmean

from core.service.jobs.gates import gated_figure
from core.service.sweeps.schemas import Constraints
from secateur_wire.metrics import Metrics
from secateur_wire.sweeps import Excess, Figures, Objective

_FIGURE_OF = {
    "max_perplexity_ratio": "perplexity_ratio",
    "max_bits_per_byte_ratio": "bits_per_byte_ratio",
    "max_accuracy_drop": "accuracy_drop",
    "max_task_accuracy_drop": "task_accuracy_drop",
    "max_answer_kl": "answer_kl",
    "max_length_ratio": "length_ratio",
    "max_latency_ratio": "latency_ratio",
    "max_bytes": "bytes",
    "max_bytes_ratio": "bytes_ratio",
    "max_parameters": "parameters",
}
assert _FIGURE_OF.keys() == Constraints.model_fields.keys()
_ABSOLUTE = ("max_accuracy_drop", "max_task_accuracy_drop")
QUALITY = (
    *("max_perplexity_ratio", "max_bits_per_byte_ratio", "max_accuracy_drop", "max_task_accuracy_drop"),
    *("max_answer_kl", "max_length_ratio"),
)
"""Limits that become harder to meet the more is removed; the others become easier."""

_OBJECTIVES: dict[Objective, tuple[str, int]] = {
    "min_parameters": ("parameters", 1),
    "min_bytes": ("bytes", 1),
    "min_latency": ("latency_ms", 1),
    "min_perplexity": ("perplexity", 1),
    "max_accuracy": ("accuracy", -1),
}
"""Figure of each objective, and 1 where less of it is better."""
OBJECTIVES: tuple[Objective, ...] = tuple(_OBJECTIVES)


def figures_from(metrics: Metrics) -> Figures:
    """Return the figures in a job's metrics; null for figures that are missing or not finite."""
    texts = [each.pruned for each in metrics.perplexity.values() if each.pruned is not None]
    answers = (metrics.tasks or metrics.accuracy).values()
    answered = [each.pruned for each in answers if each.pruned is not None]
    figures = {name: gated_figure(gate, metrics) for gate, name in _FIGURE_OF.items()}
    figures |= {
        "latency_ms": None if metrics.latency is None else metrics.latency.pruned_ms,
        "perplexity": _geometric_mean(texts),
        "accuracy": fmean(answered) if answered else None,
    }
    return Figures.model_validate({name: value if _is_finite(value) else None for name, value in figures.items()})


def objective_value(objective: Objective, figures: Figures) -> float | None:
    """Return the figure of an objective."""
    value: float | None = getattr(figures, _OBJECTIVES[objective][0])
    return value


def cost_of(objective: Objective, figures: Figures) -> float | None:
    """Return the objective's figure, negated where more is better: less is then always better."""
    value = objective_value(objective, figures)
    return None if value is None else _OBJECTIVES[objective][1] * value


def unmet(constraints: Constraints, figures: Figures) -> list[Excess]:
    """Return the limits that are exceeded or whose figure is missing, in the order of the request's fields."""
    excesses = []
    for constraint, figure in _FIGURE_OF.items():
        limit: float | None = getattr(constraints, constraint)
        if limit is None:
            continue
        value: float | None = getattr(figures, figure)
        if value is None:
            excesses.append(Excess(constraint=constraint, limit=limit, value=None, by=None))
        elif value > limit:
            by = value - limit if constraint in _ABSOLUTE else value / limit - 1
            excesses.append(Excess(constraint=constraint, limit=limit, value=value, by=by))
    return excesses


def distance(excesses: Iterable[Excess]) -> float:
    """Return the largest excess over a limit: 0 where all limits are met."""
    return max((math.inf if each.by is None else each.by for each in excesses), default=0.0)


def _geometric_mean(values: list[float]) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    return math.exp(fmean(math.log(value) for value in values))


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
