"""Offer of a method to the planner: a job that serves a goal, and the reason to take it."""

from dataclasses import dataclass, field

from core.engine.options.patterns import UNSTRUCTURED
from secateur_wire.base import JsonObject
from secateur_wire.plans import Goal


@dataclass(frozen=True, kw_only=True)
class PlanOffer:
    """Job that a method offers for `goals` on models of a task; the planner tries offers in ascending order of `place`.

    `sequences` is the number of calibration sequences. With `needs_files` the job is offered only where added files can
    be written, whose bytes then count.
    """

    goals: tuple[Goal, ...]
    place: int
    reason: str
    task: str = "language-model"
    pattern: str = UNSTRUCTURED.text
    parameters: JsonObject = field(default_factory=dict)
    layout: str = "uniform"
    sequences: int = 32
    needs_files: bool = False
