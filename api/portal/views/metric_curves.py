"""The curves a running job draws: its metric events, by name."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from secateur_wire.jobs import JobEvent

MOST_POINTS = 500
"""Most points of one curve in a page; of longer ones only every so many are shown."""

_NAMES = {
    "recovery_loss": ("Training loss during recovery", "step", "nats"),
    "training_loss": ("Training loss before pruning", "step", "nats"),
    "retraining_loss": ("Training loss between cuts", "step", "nats"),
    "reconstruction_error": ("Reconstruction error by block", "block", "‖(W−Ŵ)X‖ ⁄ ‖WX‖"),
    "perplexity": ("Perplexity by block", "block", "perplexity"),
    "parameters": ("Parameters left by round", "round", "parameters"),
    "flops": ("FLOPs left by round", "round", "FLOPs for an image"),
    "latency_ratio": ("Latency of the shapes tried", "shape", "pruned ÷ dense"),
    "target_sparsity": ("Sparsity found for the target", "shapes timed", "sparsity"),
}
"""Title, what a step is, what a value is."""


@dataclass(frozen=True)
class Point:
    """One point of a curve; `sequence` is the number of its event."""

    sequence: int
    attempt: int
    step: int
    value: float


@dataclass(frozen=True)
class MetricCurve:
    """Curve of one metric; `id` is its name as an HTML id, `left_out` says whether points were left out."""

    name: str
    id: str
    title: str
    step: str
    value: str
    points: Sequence[Point]
    left_out: bool = False


def curves_of(events: Iterable[JobEvent]) -> list[MetricCurve]:
    """Return one curve for each name from metric events in their order."""
    points: dict[str, list[Point]] = {}
    for event in events:
        step, value = event.data.get("step"), event.data.get("value")
        if event.type == "metric" and isinstance(step, int | float) and isinstance(value, int | float):
            point = Point(event.sequence, event.attempt, int(step), float(value))
            points.setdefault(str(event.data["name"]), []).append(point)
    return [_curve(name, each) for name, each in points.items()]


def curve_id(name: str) -> str:
    """Return a metric's name as an HTML id of letters, digits and hyphens."""
    return "curve-" + re.sub(r"[^a-z0-9]+", "-", name.lower())


def _curve(name: str, points: Sequence[Point]) -> MetricCurve:
    title, step, value = _NAMES.get(name, (name.replace("_", " ").capitalize(), "step", "value"))
    every = -(-len(points) // MOST_POINTS)
    shown = [point for place, point in enumerate(points) if (len(points) - 1 - place) % every == 0]
    return MetricCurve(name, curve_id(name), title, step, value, shown, left_out=every > 1)
