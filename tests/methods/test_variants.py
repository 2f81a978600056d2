"""A method may be another thing with another pattern: parameters, layouts, needs and costs are those of the job's."""

import pytest

from core.device_kinds import CPU
from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import ModelDescription
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.solver import Solver
from core.engine.removals.runs import LANGUAGE_RUNS
from core.methods.engine import build_method
from core.methods.registry import METHODS, get_method, parse_parameters
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.sizes import resolve_target
from core.pipeline.recipes.validation import resolve_request
from core.service.jobs.estimates.compute import Tokens, compute_cost
from secateur_wire.errors import InvalidParameters, InvalidTarget
from secateur_wire.job_body import Target
from secateur_wire.methods import Method
from tests.model_folders import write_llama
from tests.recipes import recipe_of


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> ModelDescription:
    found = describe_folder(write_llama(tmp_path_factory.mktemp("model")))
    assert isinstance(found, ModelDescription)
    return found


@pytest.mark.parametrize(
    ("pattern", "parameters", "said"),
    [
        (None, {"drop_layers": 0}, "belongs to pattern 'structured' of frontier: use that pattern"),
        ("structured", {"iterations": 4}, "belongs to pattern 'unstructured' or 'n:m' of frontier"),
        ("structured", {"colour": 0}, "unknown field; frontier takes: "),
    ],
)
def test_a_parameter_of_another_pattern_is_said_to_be_that(
    pattern: str | None, parameters: dict[str, object], said: str
) -> None:
    param = f"parameters.{next(iter(parameters))}"
    with pytest.raises(InvalidParameters) as refused:
        parse_parameters("frontier", parameters, pattern)
    assert refused.value.message.startswith(f"{param}: {said}") and refused.value.param == param


def test_layouts_and_costs_are_those_of_the_pattern(description: ModelDescription) -> None:
    passes = {
        pattern: compute_cost(
            description, recipe_of("frontier", sparsity=0.5, pattern=pattern), Tokens(7, 0, 0), CPU
        ).passes
        for pattern in ("unstructured", "structured")
    }
    assert passes["structured"] > passes["unstructured"] > 0
    asked = UnresolvedRequest("frontier", "structured", 0.2, layout="per_layer", is_calibrated=True)
    assert resolve_request(description, asked).layout == "per_layer"
    with pytest.raises(InvalidTarget, match="use pattern 'structured', with which frontier removes heads"):
        resolve_target(description, UnresolvedRequest("frontier"), Target(latency_ratio=0.8))


def test_only_the_pattern_that_goes_layer_by_layer_is_measured_alone(description: ModelDescription) -> None:
    asked: dict[str, object] = {"method": "frontier"}
    measured = resolve_request(description, UnresolvedRequest("sensitivity", None, None, asked)).parameters
    assert measured.model_dump()["pattern"] == "unstructured"
    with pytest.raises(InvalidParameters, match=r"with pattern 'structured': use unstructured, n:m") as refused:
        resolve_request(description, UnresolvedRequest("sensitivity", None, None, asked | {"pattern": "structured"}))
    assert refused.value.param == "parameters.pattern"


def test_the_catalogue_says_what_is_another_thing_with_which_pattern() -> None:
    listed, plain = (Method.model_validate(get_method(each).public()) for each in ("frontier", "wanda"))
    cut = listed.variants["structured"]
    assert cut.description != listed.description and listed.variants.keys() == {"structured"} and not plain.variants
    assert "drop_layers" in str(cut.parameters["properties"]) and "iterations" in str(listed.parameters["properties"])


@pytest.mark.parametrize("method", [each.id for each in METHODS.values() if each.removal is not None])
def test_a_method_has_a_class_for_each_pass_that_it_is_listed_for(method: str) -> None:
    listed = get_method(method)
    for pattern in listed.patterns:
        removal = listed.variant(pattern).removal
        assert removal is not None
        for task in listed.task_families:
            is_text = task == "language-model"
            protocols = LANGUAGE_RUNS[removal.id].protocols if is_text else (ClassifierMethod, Solver)
            assert isinstance(build_method(method, parse_parameters(method, {}, pattern), protocols), protocols)
