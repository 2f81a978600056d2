"""Each kind of removal: what it says is reachable is what it takes, and what it takes is what is left."""

from typing import Any

import pytest

from core.engine.architectures.description import ModelDescription, inspect_folder
from core.engine.removals.registry import REMOVALS
from core.methods.registry import METHODS, parse_parameters
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


def test_every_method_that_prunes_names_a_removal_and_every_removal_is_named() -> None:
    named = {variant.removes for info in METHODS.values() for variant in (info, *info.variants.values())}
    assert named - {None} == set(REMOVALS)
    assert {info.id for info in METHODS.values() if info.removal is None} == {
        info.id for info in METHODS.values() if not info.prunes
    }


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


def test_only_the_kinds_that_zero_leave_a_file_as_large(llama: ModelDescription) -> None:
    assert [each.id for each in REMOVALS.values() if each.zeroes] == ["weights"]
    half = ResolvedRequest("magnitude", "unstructured", 0.5, parse_parameters("magnitude", {})).cut(llama)
    assert REMOVALS["weights"].scale(half, "bytes").start > llama.bytes  # a bit for each weight beside the values
