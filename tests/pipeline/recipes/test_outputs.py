"""Forms and dtypes of artifacts, checked against the model."""

from pathlib import Path

import pytest
import torch

from core.engine.architectures.description import inspect_folder
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.parts import Output
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import StoredDtype
from tests.engine.tiny import make_model


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
