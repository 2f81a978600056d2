"""Candidates: the jobs that may serve a goal, best first; whether each fits the model is checked later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from core.methods.method_info import PlanOffer
from core.methods.registry import METHODS, get_method
from secateur_wire.plans import Goal


@dataclass(frozen=True, kw_only=True)
class JobCandidate(PlanOffer):
    """A way to run a method, with the id of the method."""

    method: str

    @property
    def removes_tokens(self) -> bool:
        """Return whether tokens go that a text does not use, and nothing else."""
        removal = get_method(self.method).variant(self.pattern).removal
        return removal is not None and removal.reads_texts


def _candidates(task: str, goal: Goal) -> list[JobCandidate]:
    offers = [
        JobCandidate(**vars(offer), method=method.id)
        for method in METHODS.values()
        for offer in method.offers
        if offer.task == task and goal in offer.goals
    ]
    return sorted(offers, key=lambda each: each.place)


_TASKS: Final = sorted({offer.task for method in METHODS.values() for offer in method.offers})
CANDIDATES: Final[Mapping[str, Mapping[Goal, Sequence[JobCandidate]]]] = {
    task: {goal: _candidates(task, goal) for goal in get_args(Goal)} for task in _TASKS
}
"""Candidates by the model's task and the goal, best first."""
