"""Each kind of removal: what it says is reachable is what it takes, and what it takes is what is left."""

from typing import Any

import pytest

from core.engine.architectures.description import ModelDescription, inspect_folder
from core.engine.removals.registry import REMOVALS
from core.methods.registry import parse_parameters
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.errors import InvalidSparsity
from tests.engine.tiny import make_model

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
