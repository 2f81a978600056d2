"""A method is one folder: written somewhere else on the package's path it is found, listed, costed, and prunes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.engine.classifying import network, prune, scene
from tests.engine.sweeping import sweep, tensors_of
from tests.engine.tiny import make_model
from tests.methods.made_up import known_here, write_method
from tests.model_folders import write_llama

INFO = '''
    """Every other weight: its description and parameters."""

    from pydantic import Field

    from core.engine.removals.weights.options import LayerSelection
    from core.engine.options.propagation import PropagationOptions
    from core.methods.method_info import ZEROS, MethodInfo
    from secateur_wire.methods import Needs


    class EveryOtherParameters(LayerSelection, PropagationOptions):
        """Parameters of `every-other`."""

        first: int = Field(0, ge=0, le=1, description="The first weight that goes.")

        def forwards(self, description, share, calibration, window):
            """Return the tokens of a method that reads the text a thousand times."""
            return 1000 * calibration


    INFO = MethodInfo(
        id="every-other",
        rank=35,
        title="Every other",
        summary="Removes every other weight.",
        description="Removes every other weight.",
        gains=ZEROS,
        paper=None,
        task_families=("language-model", "image-classification"),
        patterns=("unstructured",),
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=EveryOtherParameters,
        removes="weights",
    )
'''
METHOD = '''
    """Every other weight, 2026."""

    from core.engine.pruning.input_statistics import Statistic
    from core.engine.pruning.protocols.layerwise import Method


    class EveryOther(Method):
        """Removal of every other column."""

        statistic = Statistic.NONE

        def __init__(self, parameters):
            self.first = parameters.first

        def prune(self, linears, inputs, note):
            pruned = [linear.weight_OI.clone() for linear in linears]
            for weight_OI in pruned:
                weight_OI[:, self.first :: 2] = 0
            return pruned
'''
SCRIPT = """
    import json, sys
    from pathlib import Path

    from core import methods

    methods.__path__.append(sys.argv[1])

    from api.routes.methods import list_methods
    from core.engine.architectures.describe import describe_folder
    from core.device_kinds import CPU
    from core.service.jobs.estimates.compute import Tokens, compute_cost
    from tests.recipes import recipe_of

    listed = list_methods(None).data
    recipe, model = recipe_of("every-other", sparsity=0.5), describe_folder(Path(sys.argv[2]))
    work = compute_cost(model, recipe, Tokens(7, 0, 0), CPU)
    print(json.dumps({
        "ids": [each.id for each in listed],
        "entry": next(each.model_dump() for each in listed if each.id == "every-other"),
        "passes": work.passes,
        "described_without_torch": "torch" not in sys.modules,
    }))
"""


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the one folder more."""
    files = {"__init__.py": '"""Every other weight."""', "info.py": INFO, "method.py": METHOD}
    return write_method(tmp_path_factory.mktemp("more"), "every_other", files)


@pytest.fixture(scope="module")
def found(more: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the answers of a new process once there is one folder more."""
    model = write_llama(tmp_path_factory.mktemp("found") / "model")
    command = [sys.executable, "-c", dedent(SCRIPT), str(more), str(model)]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


@pytest.fixture
def _known_here(more: Path) -> Iterator[None]:
    with known_here(more, "every_other"):
        yield


def test_it_is_listed_in_its_place_without_torch(found: dict[str, Any]) -> None:
    place = found["ids"].index("every-other")
    assert found["ids"][place - 1 : place + 2] == ["wanda", "every-other", "sparsegpt"]
    assert "first" in found["entry"]["parameters"]["properties"]
    assert found["described_without_torch"]


def test_its_own_cost_is_what_it_is_said_to_need(found: dict[str, Any]) -> None:
    assert found["passes"] == 7000


@pytest.mark.usefixtures("_known_here")
def test_it_prunes_a_language_model_and_a_classifier(tmp_path: Path) -> None:
    result = sweep(
        make_model(tmp_path / "model", "llama"), tmp_path / "work", calibration=None, method="every-other",
        sparsity=0.5, parameters={"first": 1},
    )  # fmt: skip
    pruned = [tensor for name, tensor in tensors_of(result).items() if name.endswith("proj.weight")]
    assert pruned and all((weight[:, 1::2] == 0).all() and (weight[:, ::2] != 0).all() for weight in pruned)
    classifier = network("mlp", hidden_sizes=[4], image_size=8)
    prune("every-other", scene(classifier, sparsity=0.5))
    assert (next(classifier.parameters())[:, ::2] == 0).all()
