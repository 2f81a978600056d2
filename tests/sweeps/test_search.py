"""The search's next step: against the whole grid on curves that rise, and on cases one can follow."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from core.service.sweeps.search import (
    Branch,
    NoWinner,
    Place,
    PointOutcome,
    ProbeStep,
    VerifyStep,
    Winner,
    next_step,
)

Curves = Sequence[Sequence[float]]


def branches_for(curves: Curves, sparsities: Sequence[float], groups: Sequence[str]) -> list[Branch]:
    width = len(sparsities)
    return [
        Branch(
            f"method {rank}", groups[rank], [Place(rank * width + i, sparsity) for i, sparsity in enumerate(sparsities)]
        )
        for rank in range(len(curves))
    ]


def outcome(curves: Curves, sparsities: Sequence[float], number: int, limit: float) -> PointOutcome:
    rank, place = divmod(number, len(sparsities))
    kept = curves[rank][place] <= limit
    return PointOutcome(kept, kept, 1 - sparsities[place])


def grid_winner(curves: Curves, sparsities: Sequence[float], limit: float) -> int | None:
    every = range(len(curves) * len(sparsities))
    kept = [(outcome(curves, sparsities, number, limit).cost, number) for number in every]
    met = [(cost, number) for cost, number in kept if outcome(curves, sparsities, number, limit).keeps_all]
    return min(met)[1] if met else None


def run(curves: Curves, sparsities: Sequence[float], limit: float, *, at_a_time: int = 1) -> tuple[int | None, int]:
    """The winner and how many jobs it took, `at_a_time` of them running together."""
    branches = branches_for(curves, sparsities, ["one"] * len(curves))
    probed: dict[int, PointOutcome | None] = {}
    while True:
        match next_step(branches, probed, {}, verifies=False, jobs_left=10_000):
            case ProbeStep(numbers):
                assert not set(numbers) & set(probed), "nothing is run twice"
                for number in numbers[:at_a_time]:
                    probed[number] = outcome(curves, sparsities, number, limit)
            case Winner(number):
                return number, len(probed)
            case NoWinner():
                return None, len(probed)
            case VerifyStep():
                raise AssertionError("nothing is cheaper than what was measured")


@st.composite
def rising_curves(draw: st.DrawFn) -> tuple[Curves, list[float]]:
    width = draw(st.integers(1, 12))
    sparsities = [(place + 1) / (width + 1) for place in range(width)]
    rising = st.lists(st.floats(1, 10, allow_nan=False), min_size=width, max_size=width).map(sorted)
    return draw(st.lists(rising, min_size=1, max_size=5)), sparsities


@settings(max_examples=300, deadline=None)
@given(rising_curves(), st.floats(0.5, 11), st.integers(1, 4))
def test_it_finds_what_the_whole_grid_finds_with_no_more_jobs(
    given_curves: tuple[Curves, list[float]], limit: float, at_a_time: int
) -> None:
    curves, sparsities = given_curves
    winner, jobs = run(curves, sparsities, limit, at_a_time=at_a_time)
    assert winner == grid_winner(curves, sparsities, limit)
    assert jobs <= len(curves) * len(sparsities)


@settings(max_examples=200, deadline=None)
@given(rising_curves(), st.floats(0.5, 11), st.floats(-2, 2), st.integers(2, 30))
def test_what_it_finds_by_cheaper_probes_keeps_the_limit_in_full(
    given_curves: tuple[Curves, list[float]], limit: float, flattery: float, most: int
) -> None:
    """Probes are better or worse than the full evaluation by so much; only a verified winner is called one."""
    curves, sparsities = given_curves
    cheaper = [[value - flattery for value in curve] for curve in curves]
    branches = branches_for(curves, sparsities, ["one"] * len(curves))
    probed: dict[int, PointOutcome | None] = {}
    verified: dict[int, PointOutcome | None] = {}
    while True:
        used = len(probed) + len(verified)
        assert used <= most
        match next_step(branches, probed, verified, verifies=True, jobs_left=most - used):
            case ProbeStep((number, *_)):
                assert number not in probed
                probed[number] = outcome(cheaper, sparsities, number, limit)
            case VerifyStep(number):
                assert number in probed and number not in verified
                verified[number] = outcome(curves, sparsities, number, limit)
            case Winner(number, is_verified):
                assert is_verified == (number in verified)
                assert not is_verified or outcome(curves, sparsities, number, limit).keeps_all
                assert is_verified or used == most
                return
            case _:
                return


def test_a_place_that_failed_is_passed_over() -> None:
    branches = branches_for([[1.0] * 3], [0.3, 0.5, 0.7], ["one"])
    step = next_step(branches, {1: None}, {}, verifies=False, jobs_left=9)
    assert step == ProbeStep((2,))


def test_methods_that_cost_differently_do_not_rule_each_other_out() -> None:
    kept = PointOutcome(True, True, 0.5)
    both = branches_for([[1.0] * 2, [1.0] * 2], [0.3, 0.6], ["masks", "structured"])
    assert next_step(both, {0: kept, 1: kept}, {}, verifies=False, jobs_left=9) == ProbeStep((3,))
    same = branches_for([[1.0] * 2, [1.0] * 2], [0.3, 0.6], ["masks", "masks"])
    assert next_step(same, {0: kept, 1: kept}, {}, verifies=False, jobs_left=9) == Winner(1, is_verified=True)


def test_a_limit_that_gets_easier_sends_the_search_up() -> None:
    """Quality is kept but the model is not fast enough yet: more has to go."""
    (branch,) = branches_for([[1.0] * 3], [0.3, 0.5, 0.7], ["one"])
    slow = PointOutcome(keeps_quality=True, keeps_all=False, cost=2.0)
    assert next_step([branch], {1: slow}, {}, verifies=False, jobs_left=9) == ProbeStep((2,))
    assert next_step([branch], {1: slow, 2: slow}, {}, verifies=False, jobs_left=9) == NoWinner()
