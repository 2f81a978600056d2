"""Amounts that go beside tokens: shares of the whole model, and targets that count the tokens that went."""

from typing import Any

import pytest

from core.engine.architectures.description import ModelDescription, inspect_folder, require_structure
from core.engine.removals.vocabulary.counts import planned_tokens
from core.engine.removals.vocabulary.sizes import reduced_description
from core.methods.registry import get_method
from core.pipeline.recipes.parts import Output
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.vocabulary import request_with_vocabulary
from secateur_wire.job_body import Target, Vocabulary
from tests.engine.tiny import make_model

TOKENS = 96
HALF = Vocabulary(amount=0.5, round_to=8)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> ModelDescription:
    return inspect_folder(make_model(tmp_path_factory.mktemp("models")))


def resolved(
    description: ModelDescription, vocabulary: Vocabulary | None = HALF, method: str = "depth", **given: Any
) -> ResolvedRequest:
    return request_with_vocabulary(description, UnresolvedRequest(method, **given), Output(), vocabulary)


def test_a_share_is_one_of_the_whole_model_and_stays_what_was_asked_for(described: ModelDescription) -> None:
    layer = require_structure(described).layers[0].parameters / described.parameters
    request = resolved(described, sparsity=layer)
    assert request.sparsity == pytest.approx(layer)
    again = resolved(described, sparsity=request.sparsity)
    assert again.sparsity == pytest.approx(request.sparsity)
    assert resolved(described, method="magnitude", sparsity=0.5).sparsity == 0.5, "zeros are a share of the layers"
    assert resolved(described, method="none").sparsity is None


@pytest.mark.parametrize("kind", ["parameters", "bytes"])
def test_a_target_counts_the_tokens_that_go(described: ModelDescription, kind: str) -> None:
    reduced = reduced_description(described, TOKENS // 2)
    left = getattr(reduced, kind)
    assert resolved(described, target=Target(**{kind: left})).sparsity == 0, "the tokens are enough"
    layer = require_structure(described).layers[0].parameters
    beyond = left - layer * (1 if kind == "parameters" else 4)
    met = resolved(described, target=Target(**{kind: beyond})).sparsity
    assert met == pytest.approx(layer / described.parameters)
    alone = resolved(described, None, target=Target(**{kind: beyond})).sparsity
    assert alone is not None and met is not None and alone > met


def test_tokens_of_the_method_follow_from_its_share_or_its_target(described: ModelDescription) -> None:
    info = get_method("vocabulary")
    assert info.removal is not None

    def left(**given: Any) -> int | None:
        request = resolved(described, None, "vocabulary", **given)
        return planned_tokens(request.cut(described))

    rows = reduced_description(described, 64).parameters
    assert left(parameters={"tokens": 60, "round_to": 8}) == 64
    assert left(parameters={"round_to": 8}, target=Target(parameters=rows)) == 64
    assert left(parameters={"round_to": 8}, target=Target(parameters=rows - 1)) == 56
    assert left(parameters={"round_to": 8}, sparsity=1 - rows / described.parameters) == 64
    assert left() is None and left(parameters={"tokens": "auto"}) is None
    both = resolved(described, None, "vocabulary", parameters={"tokens": 64})
    assert both.sparsity == pytest.approx(1 - rows / described.parameters)
    again = {"parameters": {"tokens": 64}, "sparsity": both.sparsity}
    assert left(**again) == 64, "a recipe has both"
