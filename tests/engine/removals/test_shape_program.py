"""Searches for shapes, and each kind of removal: what is reachable is what is taken, and never beyond a limit."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import ModelDescription
from core.engine.removals.registry import REMOVALS
from core.engine.removals.shape_program import Option, ShapeChoice, ShapeProgram
from core.methods.registry import parse_parameters
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.errors import InvalidSparsity
from tests.engine.tiny import make_model

_figures = st.integers(0, 40).map(lambda each: each / 8)
_options = st.lists(st.builds(Option, _figures, _figures), min_size=1, max_size=3)


@st.composite
def programs(draw: st.DrawFn, *, alike: bool = False) -> ShapeProgram:
    count = draw(st.integers(1, 3))
    layers = draw(st.lists(_options, min_size=1, max_size=4))
    if alike:
        layers = [draw(st.lists(st.builds(Option, _figures, _figures), min_size=count, max_size=count)) for _ in layers]
    possible = [(first, end) for end in range(1, len(layers) + 1) for first in range(end) if end - first < len(layers)]
    runs = {run: draw(_figures) for run in possible if draw(st.booleans())}
    return ShapeProgram(layers, runs, draw(st.one_of(st.just([]), _options)), draw(_figures))


def every_choice(program: ShapeProgram) -> Iterator[ShapeChoice]:
    """Yield all choices of a program, by trying every combination."""
    numbers = [[None, *range(len(each))] for each in program.layers]
    for options in product(*numbers):
        ends = [place for place in range(len(options) + 1) if place == len(options) or options[place] is not None]
        runs = [(last + 1, end) for last, end in zip([-1, *ends], ends, strict=False) if end > last + 1]
        if not all(run in program.runs for run in runs):
            continue
        for size in range(len(program.vocabulary)) if program.vocabulary else [None]:
            taken = [each[option] for each, option in zip(program.layers, options, strict=True) if option is not None]
            taken += [] if size is None else [program.vocabulary[size]]
            worth = sum(each.worth for each in taken) + sum(program.runs[run] for run in runs)
            yield ShapeChoice(options, size, worth, program.fixed_cost + sum(each.cost for each in taken))


def is_uniform(choice: ShapeChoice) -> bool:
    return len({option for option in choice.options if option is not None}) < 2


@settings(max_examples=80, deadline=None)
@given(programs(), _figures, st.one_of(st.none(), st.integers(0, 3)))
def test_no_combination_of_options_loses_less_within_the_limit(
    program: ShapeProgram, limit: float, dropped: int | None
) -> None:
    possible = [each for each in every_choice(program) if dropped in (None, len(each.dropped))]
    within = [each for each in possible if each.cost <= limit]
    found = program.best(limit, dropped=dropped)
    assert (found is None) == (not within)
    if found is not None:
        assert found in possible and found.cost <= limit
        assert found.worth == pytest.approx(min(each.worth for each in within))
    nearest = program.cheapest(dropped=dropped)
    assert (nearest is None) == (not possible)
    if nearest is not None:
        assert nearest.cost == pytest.approx(min(each.cost for each in possible))


@settings(max_examples=40, deadline=None)
@given(programs(alike=True), _figures)
def test_with_one_shape_for_all_layers_no_uniform_combination_loses_less(program: ShapeProgram, limit: float) -> None:
    within = [each for each in every_choice(program) if is_uniform(each) and each.cost <= limit]
    found = program.best(limit, uniform=True)
    assert (found is None) == (not within)
    if found is not None:
        assert is_uniform(found) and found.cost <= limit
        assert found.worth == pytest.approx(min(each.worth for each in within))


def test_layers_in_a_row_are_scored_as_a_run_and_not_as_two() -> None:
    """Two layers cost 1 each alone, and 10 together: the two that are apart go."""
    runs = {(first, first + 1): 1.0 for first in range(3)} | {(first, first + 2): 10.0 for first in range(2)}
    program = ShapeProgram([[Option(0, 1)]] * 3, runs, fixed_cost=1.0)
    found = program.best(2.0)
    assert found is not None and found.dropped == [0, 2] and found.worth == 2.0


WAYS = {
    "widths": ("llm-pruner", {"attention": "none", "round_to": 8}),
    "layers": ("depth", {}),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelDescription:
    return inspect_folder(make_model(tmp_path_factory.mktemp("models"), "llama"))


def request_of(kind: str, sparsity: float = 0.0, **more: Any) -> ResolvedRequest:
    method, parameters = WAYS[kind]
    return ResolvedRequest(method, "structured", sparsity, parse_parameters(method, parameters), **more)


@pytest.mark.parametrize("kind", WAYS)
def test_each_reachable_share_is_taken_as_it_is(kind: str, llama: ModelDescription) -> None:
    removal = REMOVALS[kind]
    reachable = removal.reachable(request_of(kind).cut(llama))
    assert reachable[0] == 0 and list(reachable) == sorted(reachable) and len(reachable) > 2
    assert llama.structure is not None
    for sparsity in reachable[1:]:
        plan = removal.check(request_of(kind, sparsity, at_least=True).cut(llama))
        if plan.width_reduction is not None:
            assert plan.width_reduction.counts is not None
            removed = sum(each.removed for each in plan.width_reduction.counts)
        else:
            removed = plan.removed * llama.structure.parameters // llama.layers
        assert removed == pytest.approx(sparsity * llama.parameters, abs=1)


@pytest.mark.parametrize("kind", WAYS)
def test_more_than_can_go_is_refused_and_the_nearest_figure_is_one_that_can(kind: str, llama: ModelDescription) -> None:
    removal, beyond = REMOVALS[kind], request_of(kind, 0.99, at_least=True).cut(llama)
    with pytest.raises(InvalidSparsity):
        removal.check(beyond)
    nearest = removal.nearest(beyond, "parameters")
    assert nearest == round(llama.parameters * (1 - removal.reachable(beyond)[-1]))
