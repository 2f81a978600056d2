"""Targets, of units and of tokens beside them: a result has at most the figure asked for, and within a group of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.removals.layers import layer_count
from core.engine.removals.vocabulary import planned_tokens, reduced_description
from core.engine.removals.widths import WidthOptions, plan_width_reduction
from core.methods.registry import get_method, parse_parameters
from core.pipeline.recipes.recipe import Output
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.sizes import resolve_target
from core.pipeline.recipes.vocabulary import request_with_vocabulary
from secateur_wire.errors import InvalidTarget
from secateur_wire.job_body import Target, Vocabulary
from tests.engine.tiny import UNLIKE, make_model
from tests.families import LANGUAGE_MODELS

ROUND_TO = 8


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelDescription]:
    folder = tmp_path_factory.mktemp("models")
    return {name: inspect_folder(make_model(folder / name, name)) for name in LANGUAGE_MODELS}


def left(description: ModelDescription, method: str, target: Target, parameters: dict[str, Any]) -> int:
    """Parameters that are left once a target was resolved and its sparsity turned into counts."""
    resolved = resolve_target(description, UnresolvedRequest(method, None, None, parameters), target)
    assert resolved.sparsity is not None
    structure = require_structure(description)
    checked = parse_parameters(method, parameters)
    if isinstance(checked, WidthOptions):
        width_reduction = plan_width_reduction(description, checked, resolved.sparsity, at_least=True)
        return description.parameters - sum(each.removed for each in width_reduction.counts or ())
    gone = layer_count(structure, parameters=description.parameters, ratio=resolved.sparsity, at_least=True)
    return description.parameters - gone * structure.layers[0].parameters


def attentions(description: ModelDescription) -> list[str]:
    return (
        ["kv_groups", "query_heads", "none"]
        if require_structure(description).facts["kv_group_parameters"]
        else ["none"]
    )


def reachable(description: ModelDescription, method: str, parameters: Mapping[str, Any]) -> Sequence[float]:
    request = ResolvedRequest(method, "structured", 0.0, parse_parameters(method, parameters, "structured"))
    assert request.removal is not None
    return request.removal.reachable(request.cut(description))


@pytest.mark.parametrize("kind", ["parameters", "bytes"])
@pytest.mark.parametrize("method", ["llm-pruner", "depth"])
@given(data=st.data())
@hypothesis_settings(max_examples=30, deadline=None)
def test_a_target_is_never_exceeded_met_within_one_group_and_monotone(
    kind: str, method: str, described: dict[str, ModelDescription], data: st.DataObject
) -> None:
    description = described[data.draw(st.sampled_from(sorted(LANGUAGE_MODELS)))]
    structure = require_structure(description)
    parameters: dict[str, Any] = {}
    group = structure.layers[0].parameters
    if method == "llm-pruner":
        parameters = {"attention": data.draw(st.sampled_from(attentions(description))), "round_to": ROUND_TO}
        group = description.layers * ROUND_TO * structure.channel_parameters
    each = 1 if kind == "parameters" else description.bytes // description.parameters
    least = reachable(description, method, parameters)[-1]
    figures = st.integers(round((1 - least) * description.parameters) * each, description.parameters * each)
    small, large = sorted((data.draw(figures), data.draw(figures)))
    answers = [left(description, method, Target(**{kind: asked}), parameters) for asked in (small, large)]
    for asked, answer in zip((small, large), answers, strict=True):
        assert answer * each <= asked < (answer + group) * each + each
    assert answers[0] <= answers[1]


@pytest.mark.parametrize("name", UNLIKE)
@pytest.mark.parametrize("method", ["l2-structured", "depth", "wanda"])
def test_what_is_out_of_reach_names_the_nearest_figure_which_is_within_reach(
    name: str, method: str, described: dict[str, ModelDescription]
) -> None:
    description = described[name]
    request = UnresolvedRequest(method, leaves_out_zeros=method == "wanda")
    for kind in ("parameters", "bytes"):

        def sparsity(figure: int, kind: str = kind) -> float | None:
            return resolve_target(description, request, Target(**{kind: figure})).sparsity

        with pytest.raises(InvalidTarget, match="the nearest is") as refused:
            sparsity(1)
        nearest = int(refused.value.message.rpartition(" ")[2].replace(",", ""))
        assert sparsity(nearest)
        with pytest.raises(InvalidTarget):
            sparsity(nearest - 1)
        dense = getattr(description, kind)
        assert sparsity(dense) == 0
        with pytest.raises(InvalidTarget, match=f"the dense model has only {dense:,}"):
            sparsity(dense + 1)


TOKENS = 96
HALF = Vocabulary(amount=0.5, round_to=8)


@pytest.fixture(scope="module")
def llama(described: dict[str, ModelDescription]) -> ModelDescription:
    return described["llama"]


def resolved(
    description: ModelDescription, vocabulary: Vocabulary | None = HALF, method: str = "depth", **given: Any
) -> ResolvedRequest:
    return request_with_vocabulary(description, UnresolvedRequest(method, **given), Output(), vocabulary)


def test_a_share_is_one_of_the_whole_model_and_stays_what_was_asked_for(llama: ModelDescription) -> None:
    layer = require_structure(llama).layers[0].parameters / llama.parameters
    request = resolved(llama, sparsity=layer)
    assert request.sparsity == pytest.approx(layer)
    again = resolved(llama, sparsity=request.sparsity)
    assert again.sparsity == pytest.approx(request.sparsity)
    assert resolved(llama, method="magnitude", sparsity=0.5).sparsity == 0.5, "zeros are a share of the layers"
    assert resolved(llama, method="none").sparsity is None


@pytest.mark.parametrize("kind", ["parameters", "bytes"])
def test_a_target_counts_the_tokens_that_go(llama: ModelDescription, kind: str) -> None:
    reduced = reduced_description(llama, TOKENS // 2)
    left = getattr(reduced, kind)
    assert resolved(llama, target=Target(**{kind: left})).sparsity == 0, "the tokens are enough"
    layer = require_structure(llama).layers[0].parameters
    beyond = left - layer * (1 if kind == "parameters" else 4)
    met = resolved(llama, target=Target(**{kind: beyond})).sparsity
    assert met == pytest.approx(layer / llama.parameters)
    alone = resolved(llama, None, target=Target(**{kind: beyond})).sparsity
    assert alone is not None and met is not None and alone > met


def test_tokens_of_the_method_follow_from_its_share_or_its_target(llama: ModelDescription) -> None:
    info = get_method("vocabulary")
    assert info.removal is not None

    def left(**given: Any) -> int | None:
        request = resolved(llama, None, "vocabulary", **given)
        return planned_tokens(request.cut(llama))

    rows = reduced_description(llama, 64).parameters
    assert left(parameters={"tokens": 60, "round_to": 8}) == 64
    assert left(parameters={"round_to": 8}, target=Target(parameters=rows)) == 64
    assert left(parameters={"round_to": 8}, target=Target(parameters=rows - 1)) == 56
    assert left(parameters={"round_to": 8}, sparsity=1 - rows / llama.parameters) == 64
    assert left() is None and left(parameters={"tokens": "auto"}) is None
    both = resolved(llama, None, "vocabulary", parameters={"tokens": 64})
    assert both.sparsity == pytest.approx(1 - rows / llama.parameters)
    again = {"parameters": {"tokens": 64}, "sparsity": both.sparsity}
    assert left(**again) == 64, "a recipe has both"
