"""A recipe is its job's body: what a row holds comes back from it, to the last byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.openapi.examples import EXAMPLES
from core.methods.registry import METHODS, get_method, parse_parameters
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.schemas import JobBody
from secateur_wire.errors import InvalidParameters, InvalidRequest, UnknownMethod

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[2] / "golden" / "bodies.json").read_text())
WHOLE = EXAMPLES["Inspection"]["job"]


def row_of(body: dict[str, Any]) -> dict[str, Any]:
    """The body as a job's row holds it, but for what only the model decides."""
    filled = JobBody.model_validate(body).model_dump(mode="json")
    method = get_method(filled["method"])
    filled["pattern"] = filled["pattern"] or (method.patterns[0] if method.patterns else "unstructured")
    filled["parameters"] = parse_parameters(method.id, filled["parameters"], filled["pattern"]).model_dump(mode="json")
    return filled


@pytest.mark.parametrize("body", [row_of(each) for each in GOLDEN.values()], ids=GOLDEN)
def test_a_recipe_gives_back_the_body_it_was_made_of_whole_or_without_defaults(body: dict[str, Any]) -> None:
    recipe = Recipe.load(body)
    assert json.dumps(recipe.body()) == json.dumps(body)
    assert type(recipe.parameters) is METHODS[body["method"]].variant(body["pattern"]).parameters
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    shown = recipe.shown_body()
    assert row_of(shown) == body and len(json.dumps(shown)) < len(json.dumps(body)) / 2, "it has no defaults"


def test_a_row_of_an_earlier_release_has_the_defaults_of_what_came_later_and_may_have_those_of_what_left() -> None:
    row = row_of(WHOLE)
    for name in ("target", "recovery", "time_limit_seconds"):
        del row[name]
    del row["evaluation"]["prompts"], row["evaluation"]["prompt_tokens"], row["output"]["layout"]
    row["evaluation"]["answers"] = {"datasets": ["questions"], "seed": 0}
    recipe = Recipe.load(row)
    assert (recipe.target, recipe.recovery, recipe.time_limit_seconds) == (None, None, None)
    assert (recipe.evaluation.prompts, recipe.output.layout) == ([], "uniform")


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"method": "wandaa"}, UnknownMethod, "method"),
        ({"parameters": {"variants": True}}, InvalidParameters, "parameters.variants"),
        ({"output": {"format": "folded"}}, InvalidRequest, "output.format"),
        ({"recovery": {"method": "lora", "until": {"gain_per_minute": 0.1}}}, InvalidRequest, "recovery.until"),
        ({"evaluation": {"answers": {"datasets": ["a"], "seed": 7}}}, InvalidRequest, "evaluation.answers.seed"),
    ],
)
def test_one_that_this_release_cannot_run_is_refused_by_name(
    change: dict[str, Any], error: type[InvalidRequest], param: str
) -> None:
    with pytest.raises(error) as refused:
        Recipe.load(row_of(WHOLE) | change)
    assert refused.value.param == param
