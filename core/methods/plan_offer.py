"""Offer of a method to the planner: a job that serves a goal, and why it may be taken."""

from dataclasses import dataclass, field

from core.engine.options.patterns import UNSTRUCTURED
from secateur_wire.base import JsonObject
from secateur_wire.plans import Goal


@dataclass(frozen=True, kw_only=True)
class PlanOffer:
    """A job with the method, for `goals` on models of a task; offers are tried by `place`, lowest first.

    `sequences` are those to calibrate on. `usual` is the share to remove where nothing is known of the outcome.
    """

    goals: tuple[Goal, ...]
    place: int
    reason: str
    task: str = "language-model"
    pattern: str = UNSTRUCTURED.text
    parameters: JsonObject = field(default_factory=dict)
    layout: str = "uniform"
    sequences: int = 32
    usual: float = 0.5
