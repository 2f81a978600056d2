"""Curves of a running job from its metric events, by metric name."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from secateur_wire.jobs import JobEvent

MOST_POINTS = 500
"""Maximum number of points of one curve in a page; of longer curves only every n-th point is shown."""
_COUNTS = frozenset({"dense_evaluation"})
"""Metrics that only count something; they say nothing as curves."""

_NAMES = {
    "recovery_loss": (
        "Training loss during recovery", "step", "nats",
        "How badly the model predicts the text it is trained on. Lower is better; level means that training is done.",
    ),
    "recovery_hidden_states": (
        "Error of the hidden states during recovery", "step", "share of their size",
        "How far the blocks' outputs are from the dense model's. 0 is equal; level means that training is done.",
    ),
    "training_loss": (
        "Training loss before pruning", "step", "nats", "How wrong the model is on its training data. Lower is "
        "better."
    ),
    "retraining_loss": (
        "Training loss between cuts", "step", "nats",
        "It rises with each cut and falls with the training that follows. If it stays up, too much goes at once.",
    ),
    "reconstruction_error": (
        "Reconstruction error by block", "block", "‖(W−Ŵ)X‖ ⁄ ‖WX‖",
        "Share of the output of a block's layers that pruning changed. 0 is no change. A block that stands out lost "
        "most.",
    ),
    "perplexity": ("Perplexity by block", "block", "perplexity", "Lower is better."),
    "parameters": ("Parameters left by round", "round", "parameters", "How small the network is after each round."),
    "flops": ("FLOPs left by round", "round", "FLOPs for an image", "Operations for one image."),
    "latency_ratio": (
        "Latency of the shapes tried", "shape", "pruned ÷ dense", "Below 1 is faster than the dense model."
    ),
    "target_sparsity": (
        "Sparsity found for the target", "shapes timed", "sparsity", "Sparsity that is needed for the latency asked "
        "for."
    ),
}  # fmt: skip
"""Title, the unit of a step, the unit of a value, and how to read the curve."""


@dataclass(frozen=True)
class Point:
    """One point of a curve; `sequence` is the number of its event."""

    sequence: int
    attempt: int
    step: int
    value: float


@dataclass(frozen=True)
class MetricCurve:
    """Curve of one metric; `id` is its name as an HTML id, `left_out` says whether points were left out.

    `meaning` explains the curve.
    """

    name: str
    id: str
    title: str
    step: str
    value: str
    points: Sequence[Point]
    meaning: str = ""
    left_out: bool = False


def curves_of(events: Iterable[JobEvent]) -> list[MetricCurve]:
    """Return one curve for each name, from metric events in their order."""
    points: dict[str, list[Point]] = {}
    for event in events:
        step, value = event.data.get("step"), event.data.get("value")
        if event.type != "metric" or event.data["name"] in _COUNTS:
            continue
        if isinstance(step, int | float) and isinstance(value, int | float):
            point = Point(event.sequence, event.attempt, int(step), float(value))
            points.setdefault(str(event.data["name"]), []).append(point)
    return [_curve(name, each) for name, each in points.items()]


def curve_id(name: str) -> str:
    """Return a metric's name as an HTML id of letters, digits and hyphens."""
    return "curve-" + re.sub(r"[^a-z0-9]+", "-", name.lower())


def _curve(name: str, points: Sequence[Point]) -> MetricCurve:
    title, step, value, meaning = _NAMES.get(name, (name.replace("_", " ").capitalize(), "step", "value", ""))
    every = -(-len(points) // MOST_POINTS)
    shown = [point for place, point in enumerate(points) if (len(points) - 1 - place) % every == 0]
    return MetricCurve(name, curve_id(name), title, step, value, shown, meaning, left_out=every > 1)
