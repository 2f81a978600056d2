"""Demands of files on a request: widths that fill whole blocks of those a job adds, and dtypes that save bytes."""

from pathlib import Path

import pytest
import torch

from core.engine.architectures.describe import describe_folder, inspect_folder
from core.engine.architectures.description import ModelDescription
from core.engine.removals.widths import WidthOptions
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.recipe import Export, Output
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.recipes.vocabulary import aligned_request
from core.service.jobs.submit_warnings import warnings_for
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import StoredDtype
from tests.engine.tiny import make_model
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


@pytest.mark.parametrize(
    ("source", "asked", "is_refused"),
    [
        (torch.float32, "float16", False),
        (torch.bfloat16, "bfloat16", False),
        (torch.bfloat16, "float16", True),
        (torch.float16, "bfloat16", True),
    ],
)
def test_a_dtype_that_saves_nothing_is_refused(
    source: torch.dtype, asked: StoredDtype, is_refused: bool, tmp_path: Path
) -> None:
    description = inspect_folder(make_model(tmp_path, dtype=source))
    request = resolve_request(description, UnresolvedRequest("magnitude", sparsity=0.5))
    output = Output(dtype=asked)
    if not is_refused:
        assert resolve_output(output, description, request) == output
        return
    with pytest.raises(InvalidRequest, match="takes no more bytes than") as refused:
        resolve_output(output, description, request)
    assert refused.value.param == "output.dtype"
