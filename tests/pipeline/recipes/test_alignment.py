"""Widths that fill whole blocks of the files a job adds, where its request leaves them open."""

import pytest

from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import ModelDescription
from core.engine.removals.widths.options import WidthOptions
from core.pipeline.recipes.alignment import aligned_request
from core.pipeline.recipes.parts import Export
from core.pipeline.recipes.request import UnresolvedRequest
from core.service.jobs.submit_warnings import warnings_for
from tests.model_folders import write_llama
from tests.recipes import recipe_of

CHANNEL = 3 * 16
"""Weights of a channel of a model whose hidden size is 16."""


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> ModelDescription:
    found = describe_folder(write_llama(tmp_path_factory.mktemp("model"), layers=1, intermediate=1024))
    assert isinstance(found, ModelDescription)
    return found


@pytest.mark.parametrize(
    ("channels", "types", "asked", "expected"),
    [
        (256, ["F16"], None, None),
        (256, ["F16", "Q8_0"], None, 32),
        (256, ["Q8_0"], 8, 8),
        (256, ["Q8_0", "Q4_K_M"], None, 256),
        (220, ["Q8_0", "Q4_K_M"], None, 32),
        (1016, ["Q8_0"], None, None),
    ],
    ids=["no blocks", "blocks of 32", "asked for", "near enough", "too far", "out of reach"],
)
def test_widths_fill_the_widest_blocks_that_cost_little(
    description: ModelDescription, channels: int, types: list[str], asked: int | None, expected: int | None
) -> None:
    exports = [Export.model_validate({"format": "gguf", "types": types})]
    given = {"attention": "none"} | ({} if asked is None else {"round_to": asked})
    share = channels * CHANNEL / description.parameters
    unresolved = UnresolvedRequest("l2-structured", None, share, given, at_least=True)
    request = aligned_request(description, unresolved, exports)
    assert isinstance(request.parameters, WidthOptions) and request.parameters.round_to == expected
    added = {"exports": [each.model_dump() for each in exports]}
    recipe = recipe_of("l2-structured", sparsity=0.2, parameters=request.parameters.model_dump(), output=added)
    assert bool(warnings_for(recipe, [])) == (asked == 8), "what is asked for is kept, and said to fill no blocks"
