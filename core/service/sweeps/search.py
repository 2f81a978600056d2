"""Next step of a search: a pure function of its places and their outcomes, so it continues after any interruption.

Each method's sparsities are a branch, the cheapest model last. Quality is assumed to fall along a branch, so bisection
finds the last point that meets the limits of quality. Branches of one group (methods of one pattern) are assumed to
cost the same at the same sparsity. Once a model meets all limits, the other branches of its group are searched above
its sparsity only. The first job there is right above it, because that one job may show that a branch cannot win.
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
    """Places of one method by ascending sparsity; `group` names the methods with the same costs."""

    name: str
    group: str
    places: Sequence[Place]

    def __post_init__(self) -> None:
        assert all(before.sparsity < after.sparsity for before, after in pairwise(self.places))


@dataclass(frozen=True)
class PointOutcome:
    """Outcome of a finished point.

    `keeps_quality`: it meets the limits that become harder with sparsity. `keeps_all`: it meets all limits. `cost` is
    null where it was not measured.
    """

    keeps_quality: bool
    keeps_all: bool
    cost: float | None


@dataclass(frozen=True)
class ProbeStep:
    """Step: run one of these points next, preferably the first; several may run at a time."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class VerifyStep:
    """Step: measure this point in full."""

    number: int


@dataclass(frozen=True)
class Winner:
    """The cheapest point that meets all limits."""

    number: int
    is_verified: bool


@dataclass(frozen=True)
class NoWinner:
    """Result that no point meets all limits, among those that `max_jobs` allowed."""


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

    `probed` and `verified` are outcomes of finished points; a point that failed without figures has None and is
    skipped. `verifies` says that probes are cheaper than full evaluations; where a point has both, the full one counts.
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
    """Return the place of least cost that meets all limits.

    Among equal places the first branch wins, then the highest sparsity.
    """
    candidates = []
    for rank, branch in enumerate(branches):
        for place in branch.places:
            outcome = outcomes.get(place.number)
            if outcome is not None and outcome.keeps_all and outcome.cost is not None:
                candidates.append((outcome.cost, rank, -place.sparsity, place))
    return min(candidates, key=lambda each: each[:3])[3] if candidates else None


def _wanted(branches: Sequence[Branch], outcomes: Mapping[int, PointOutcome | None]) -> list[int]:
    """Return one place of each branch that may still have the winner; branches with the fewest results come first."""
    wanted = []
    for rank, branch in enumerate(branches):
        leader = _leader(branches, outcomes, branch.group)
        known = sum(place.number in outcomes for place in branch.places)
        open_places = _open(branch, rank, outcomes, leader)
        if not open_places:
            continue
        # A branch does this once: leaders that overtake each other by one step at a time would take many jobs.
        is_challenge = leader is not None and known == 0
        chosen = open_places[0] if is_challenge else open_places[len(open_places) // 2]
        wanted.append((known, rank, chosen.number))
    return [number for _, _, number in sorted(wanted)]


def _leader(
    branches: Sequence[Branch], outcomes: Mapping[int, PointOutcome | None], group: str
) -> tuple[int, float] | None:
    """Return the rank and sparsity of the sparsest place of a group that meets all limits."""
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
    """Return the untried places that may beat the leader.

    They lie above places that meet the limits of quality, and below places that fail.
    """
    seen = [outcomes.get(place.number) for place in branch.places]
    failing = [index for index, each in enumerate(seen) if each is not None and not each.keeps_quality]
    end = min(failing, default=len(seen))
    start = max((index for index in range(end) if seen[index] is not None), default=-1) + 1
    return [
        place
        for place in branch.places[start:end]
        if place.number not in outcomes and (leader is None or (-place.sparsity, rank) < (-leader[1], leader[0]))
    ]
