"""A method may be another thing with another pattern: parameters, classes, needs and costs are those of the job's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.device_kinds import CPU
from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import ModelDescription
from core.engine.models.folder import open_model
from core.engine.pruning.blocks.language_pass import UnitRemovalPass
from core.engine.pruning.layerwise.language_pass import LayerwisePass
from core.methods.registry import get_method, parse_parameters
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.sizes import resolve_target
from core.pipeline.recipes.validation import resolve_request
from core.service.jobs.estimates.compute import Tokens, compute_cost
from secateur_wire.errors import InvalidParameters, InvalidTarget
from secateur_wire.job_body import Target
from secateur_wire.methods import Method
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_model, make_tokens
from tests.methods.two_ways import TWO_WAYS, two_ways, write_method
from tests.model_folders import write_llama
from tests.recipes import recipe_of

__all__ = ["two_ways"]
pytestmark = pytest.mark.usefixtures("two_ways")

LISTED = """
import json, sys

from core import methods

methods.__path__.append(sys.argv[1])

from api.routes.methods import list_methods

print(json.dumps({"ids": [each.id for each in list_methods(None).data], "torch": "torch" in sys.modules}))
"""


def test_a_folder_more_is_a_method_more_in_its_place_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LISTED, str(write_method(tmp_path))]
    found = json.loads(subprocess.check_output(command, cwd=Path(__file__).parents[2]))
    place = found["ids"].index(TWO_WAYS)
    assert found["ids"][place - 1 : place + 2] == ["wanda", TWO_WAYS, "sparsegpt"] and not found["torch"]


@pytest.mark.parametrize(
    ("pattern", "parameters", "said"),
    [
        (None, {"last": True}, "parameters.last: belongs to pattern 'structured' of two-ways: use that pattern"),
        ("structured", {"first": 0}, "parameters.first: belongs to pattern 'unstructured' or 'n:m' of two-ways"),
        ("structured", {"colour": 0}, "parameters.colour: unknown field; two-ways takes: "),
    ],
)
def test_a_parameter_of_another_pattern_is_said_to_be_that(
    pattern: str | None, parameters: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidParameters) as refused:
        parse_parameters(TWO_WAYS, parameters, pattern)
    assert refused.value.message.startswith(said) and refused.value.param == f"parameters.{next(iter(parameters))}"


@pytest.mark.parametrize(("pattern", "walk"), [("unstructured", LayerwisePass), ("structured", UnitRemovalPass)])
def test_each_pattern_is_pruned_by_its_own_class(pattern: str, walk: type, tmp_path: Path) -> None:
    folder = open_model(make_model(tmp_path / "model", "llama"))
    request = request_for(folder, TWO_WAYS, 0.5 if pattern == "unstructured" else 0.3, pattern)
    (tmp_path / "work").mkdir()
    made = walk_for(
        folder, request, device=torch.device("cpu"), calibration=make_tokens(), evaluations={}, work=tmp_path / "work"
    )
    assert isinstance(made, walk)
    assert made.run().files


def test_layouts_needs_and_costs_are_those_of_the_pattern(tmp_path: Path) -> None:
    description = describe_folder(write_llama(tmp_path / "model"))
    assert isinstance(description, ModelDescription)
    passes = {
        pattern: compute_cost(
            description, recipe_of(TWO_WAYS, sparsity=0.5, pattern=pattern, parameters=parameters), Tokens(7, 0, 0), CPU
        ).passes
        for pattern, parameters in (("unstructured", {}), ("structured", {"attention": "kv_groups"}))
    }
    assert passes == {"unstructured": 7, "structured": 7000}
    assert (
        resolve_request(description, UnresolvedRequest(TWO_WAYS, "structured", 0.3, layout="per_layer")).layout
        == "per_layer"
    )
    with pytest.raises(InvalidTarget, match="use pattern 'structured', with which two-ways removes heads"):
        resolve_target(description, UnresolvedRequest(TWO_WAYS), Target(latency_ratio=0.8))


def test_only_the_pattern_that_goes_layer_by_layer_is_measured_alone(tmp_path: Path) -> None:
    description = describe_folder(write_llama(tmp_path / "model"))
    measured = resolve_request(
        description, UnresolvedRequest("sensitivity", None, None, {"method": TWO_WAYS})
    ).parameters
    assert measured.model_dump()["pattern"] == "unstructured"
    with pytest.raises(InvalidParameters, match=r"with pattern 'structured': use unstructured, n:m") as refused:
        resolve_request(
            description, UnresolvedRequest("sensitivity", None, None, {"method": TWO_WAYS, "pattern": "structured"})
        )
    assert refused.value.param == "parameters.pattern"


def test_the_catalogue_says_what_is_another_thing_with_which_pattern() -> None:
    listed, plain = (Method.model_validate(get_method(each).public()) for each in (TWO_WAYS, "wanda"))
    cut = listed.variants["structured"]
    assert (cut.description, cut.needs.calibration) == ("Removes the last heads and channels.", True)
    assert "last" in str(cut.parameters["properties"]) and "first" in str(listed.parameters["properties"])
    assert listed.variants.keys() == {"structured"} and not plain.variants
