"""Recipes for tests of what is done with one, without a model to check it against."""

from typing import Any

from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.schemas import JobBody


def recipe_of(method: str = "wanda", **body: Any) -> Recipe:
    """The recipe of a job body: the method's first pattern where it has none, all else as the request has it."""
    asked = JobBody.model_validate({"model": "m", "method": method} | body)
    patterns = get_method(method).patterns or ("unstructured",)
    return Recipe.model_validate(dict(asked) | {"pattern": asked.pattern or patterns[0]})
