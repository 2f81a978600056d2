"""Next step of a search: a pure function of its places and their outcomes, so that it goes on after any interruption.

Each method's sparsities are a branch, cheapest model last. Quality is taken to fall along a branch, so the last point
that keeps the limits of quality is found by bisection. Branches of one group (methods of one pattern) are taken to cost
the same at the same sparsity: once a model keeps all limits, the others of its group are looked at above its sparsity
only, and at first right above it, where one job may show that a branch cannot win.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Place:
    """A point of a branch."""

    number: int
    sparsity: float


@dataclass(frozen=True)
class Branch:
    """A method's places by ascending sparsity; `group` is that of methods with the same costs."""

    name: str
    group: str
    places: Sequence[Place]

    def __post_init__(self) -> None:
        assert all(before.sparsity < after.sparsity for before, after in pairwise(self.places))


@dataclass(frozen=True)
class PointOutcome:
    """Outcome of a finished point. `keeps_quality` is of the limits that get harder with sparsity, `keeps_all` of all.

    `cost` is null where it was not measured.
    """

    keeps_quality: bool
    keeps_all: bool
    cost: float | None


@dataclass(frozen=True)
class ProbeStep:
    """Step: run one of these points next, the first preferred; several may run at a time."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class VerifyStep:
    """Step: measure this point in full."""

    number: int


@dataclass(frozen=True)
class Winner:
    """The cheapest point that keeps all limits."""

    number: int
    is_verified: bool


@dataclass(frozen=True)
class NoWinner:
    """Result that no point keeps all limits, as far as `max_jobs` let the search look."""


Step = ProbeStep | VerifyStep | Winner | NoWinner


def next_step(
    branches: Sequence[Branch],
    probed: Mapping[int, PointOutcome | None],
    verified: Mapping[int, PointOutcome | None],
    *,
    verifies: bool,
    jobs_left: int,
) -> Step:
    """Return the next step of a search.

    `probed` and `verified` are of finished points, None where one failed without figures: it is passed over. `verifies`
    says that probes are cheaper than full evaluations; where a point has both, the full one counts.
    """
    outcomes = {**probed, **verified}
    wanted = _wanted(branches, outcomes)
    if wanted and jobs_left > (1 if verifies else 0):
        return ProbeStep(tuple(wanted))
    best = _best(branches, outcomes)
    if best is None:
        return NoWinner()
    if not verifies or best.number in verified:
        return Winner(best.number, is_verified=True)
    return VerifyStep(best.number) if jobs_left > 0 else Winner(best.number, is_verified=False)


def _best(branches: Sequence[Branch], outcomes: Mapping[int, PointOutcome | None]) -> Place | None:
    """Return the place of least cost that keeps all limits; of equals the first branch's, there the sparsest."""
    candidates = []
    for rank, branch in enumerate(branches):
        for place in branch.places:
            outcome = outcomes.get(place.number)
            if outcome is not None and outcome.keeps_all and outcome.cost is not None:
                candidates.append((outcome.cost, rank, -place.sparsity, place))
    return min(candidates, key=lambda each: each[:3])[3] if candidates else None


def _wanted(branches: Sequence[Branch], outcomes: Mapping[int, PointOutcome | None]) -> list[int]:
    """Return one place of each branch that may still hold the winner; branches with the fewest results come first."""
    wanted = []
    for rank, branch in enumerate(branches):
        leader = _leader(branches, outcomes, branch.group)
        known = sum(place.number in outcomes for place in branch.places)
        open_places = _open(branch, rank, outcomes, leader)
        if not open_places:
            continue
        is_challenge = leader is not None and known == 0  # once: leaders that overtake by a step at a time would creep
        chosen = open_places[0] if is_challenge else open_places[len(open_places) // 2]
        wanted.append((known, rank, chosen.number))
    return [number for _, _, number in sorted(wanted)]


def _leader(
    branches: Sequence[Branch], outcomes: Mapping[int, PointOutcome | None], group: str
) -> tuple[int, float] | None:
    """Return the rank and sparsity of the sparsest place of a group that keeps all limits."""
    kept = [
        (-place.sparsity, rank)
        for rank, branch in enumerate(branches)
        if branch.group == group
        for place in branch.places
        if (outcome := outcomes.get(place.number)) is not None and outcome.keeps_all
    ]
    if not kept:
        return None
    sparsity, rank = min(kept)
    return rank, -sparsity


def _open(
    branch: Branch, rank: int, outcomes: Mapping[int, PointOutcome | None], leader: tuple[int, float] | None
) -> list[Place]:
    """Return unvisited places above those that keep quality and below those that fail, if they may beat the leader."""
    seen = [outcomes.get(place.number) for place in branch.places]
    failing = [index for index, each in enumerate(seen) if each is not None and not each.keeps_quality]
    end = min(failing, default=len(seen))
    start = max((index for index in range(end) if seen[index] is not None), default=-1) + 1
    return [
        place
        for place in branch.places[start:end]
        if place.number not in outcomes and (leader is None or (-place.sparsity, rank) < (-leader[1], leader[0]))
    ]
