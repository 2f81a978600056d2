"""The layers that turn the stream least, against every other set of so many."""

from collections.abc import Callable
from itertools import combinations, groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.methods.frontier.layer_runs import least_influence

MOST = 7


def runs_of(layers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return where each run of adjacent layers begins, and ends before."""
    places = [[layer for _, layer in run] for _, run in groupby(enumerate(layers), key=lambda each: each[1] - each[0])]
    return [(run[0], run[-1] + 1) for run in places]


def total(layers: tuple[int, ...], influence: Callable[[int, int], float]) -> float:
    return sum(influence(first, end) for first, end in runs_of(layers))


@given(st.integers(0, 2**31 - 1), st.integers(2, MOST), st.integers(0, MOST), st.sets(st.integers(0, MOST - 1)))
def test_no_other_set_of_so_many_layers_has_less_influence(
    seed: int, layers: int, number: int, staying: set[int]
) -> None:
    costs = torch.rand(MOST, MOST + 1, generator=torch.Generator().manual_seed(seed)).tolist()
    staying = {each for each in staying if each < layers}

    def influence(first: int, end: int) -> float:
        return float(costs[first][end])

    chosen = least_influence(layers, number, staying, influence)
    free = [layer for layer in range(layers) if layer not in staying]
    assert len(chosen) == min(number, len(free)) and staying.isdisjoint(chosen)
    least = min(total(each, influence) for each in combinations(free, len(chosen)))
    assert total(tuple(chosen), influence) == pytest.approx(least)


def test_a_run_goes_where_its_end_is_near_its_beginning_and_single_layers_where_not() -> None:
    def near(first: int, end: int) -> float:
        return 0.1 if (first, end) == (2, 5) else 0.08 * (end - first)

    assert least_influence(8, 3, {0}, near) == [2, 3, 4]
    assert least_influence(8, 3, {3}, lambda first, end: (end - first) ** 3 + first) == [0, 2, 4]
