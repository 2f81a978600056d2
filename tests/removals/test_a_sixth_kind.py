"""A kind of removal is one folder: one that lies elsewhere goes through every part of the service.

`biases` is such a kind, with a method, and nothing of the product names either.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.engine import removals
from core.engine.removals.registry import REMOVALS
from core.methods.registry import CLASSES, METHODS
from core.pipeline.messages import ModelSource, PruneOutput, TextSource
from core.pipeline.reports.model_card import model_card
from core.pipeline.stages.pruning_spec import PruneSpec
from core.pipeline.stages.run import run_stage
from core.progress import Progress, WorkStopped
from core.settings import Settings
from tests.engine.tiny import make_model
from tests.engine.watching import Watching
from tests.recipes import recipe_of
from tests.removals.drop_biases import DROP_BIASES
from tests.runner.models import add_model, add_text, write_model, write_words

LAYERS = 6
OF_A_LAYER = {"attention_bias": 96, "mlp_bias": 128}
"""Biases of the tiny model's layers, by the setting of the config that gives them."""
MOST = sum(OF_A_LAYER.values())
EVALUATION = {"datasets": ["words"], "samples": 8, "sequence_length": 32}
BODY: dict[str, Any] = {"model": "biased", "method": "drop-biases", "evaluation": EVALUATION}


@pytest.fixture(scope="module", autouse=True)
def biases() -> Iterator[None]:
    """The kind and its method, known while the tests of this module run, as they are to a new process."""
    here = Path(__file__).with_name("biases")
    own = f"{removals.__name__}.biases"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removals, "__path__", [*removals.__path__, str(here / "removals")])
        patch.setitem(REMOVALS, "biases", import_module(f"{own}.info").INFO)
        patch.setitem(METHODS, DROP_BIASES.id, DROP_BIASES)
        patch.setitem(CLASSES, DROP_BIASES.id, ("tests.removals.drop_biases.DropBiases",))
        yield
    for module in [each for each in sys.modules if each == own or each.startswith(f"{own}.")]:
        del sys.modules[module]
    delattr(removals, "biases")


def write_biased(folder: Path) -> Path:
    model = write_model(folder, LAYERS)
    return make_model(model, num_hidden_layers=LAYERS, attention_bias=True, mlp_bias=True)


@pytest.fixture
def service(api: TestClient, sessions: sessionmaker[Session], settings: Settings, team: str) -> TestClient:
    """The service, with a model that has biases and a text."""
    add_model(sessions, settings, team, "biased", write_biased(settings.models_root / "biased"))
    add_text(sessions, settings, team, "words", write_words(settings.datasets_root / "words.txt"))
    return api


def parameters(service: TestClient) -> int:
    answer = service.post("/v1/models/inspect", json={"model": "biased"}).raise_for_status().json()
    return int(answer["parameters"])


def test_what_is_out_of_reach_is_refused_with_the_nearest(service: TestClient) -> None:
    dense = parameters(service)
    refused = service.post("/v1/jobs", json=BODY | {"sparsity": 0.5})
    assert refused.status_code == 422
    assert refused.json()["detail"] == (
        "sparsity 0.5: no such share of this model is biases; the nearest is "
        f"{LAYERS * MOST / dense:.6f}, attention_bias and mlp_bias"
    )
    refused = service.post("/v1/jobs", json=BODY | {"target": {"parameters": dense // 2}})
    nearest = f"cannot be reached by drop-biases on this model: the nearest is {dense - LAYERS * MOST:,}"
    assert nearest in refused.json()["detail"]


def test_it_is_listed_estimated_and_on_the_form(service: TestClient, admin_key: str) -> None:
    listed = service.get("/v1/methods").raise_for_status().json()["data"]
    assert "drop-biases" in [each["id"] for each in listed]
    answer = service.post("/v1/models/inspect", json=BODY | {"sparsity": 0.01}).raise_for_status().json()
    left = parameters(service) - LAYERS * OF_A_LAYER["attention_bias"]
    assert answer["estimate"]["peak_memory_bytes"] > 0
    assert answer["artifact"]["parameters"] == pytest.approx(left, abs=0.01 * left)
    service.post("/portal/sign-in", data={"key": admin_key})
    assert "Drop biases" in service.get("/portal/new/full?model=biased&method=drop-biases").raise_for_status().text


def pruned(
    model: Path, text: Path, work: Path, previous: list[Path], progress: Progress
) -> tuple[PruneSpec, PruneOutput]:
    """Run the stage that prunes; return its spec and what it tells."""
    work.mkdir()
    recipe = recipe_of(**BODY).model_copy(update={"sparsity": 0.01})
    spec = PruneSpec.model_validate(
        {
            "job": "job_1", "attempt": 1, "recipe": recipe, "device": "cpu", "threads": 1,
            "model": ModelSource(path=model, name="biased", revision="1"), "work": work, "previous": previous,
            "artifact": work / "artifact", "calibration": None, "activation_budget_bytes": 2**30,
            "evaluation": [TextSource(name="words", path=text, format="text")],
        }
    )  # fmt: skip
    output = run_stage(spec, progress, lambda: 0)
    assert isinstance(output, PruneOutput)
    return spec, output


def test_biases_are_gone_and_the_report_says_so_and_a_pass_that_was_ended_goes_on_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    model, text = write_biased(tmp_path / "model"), write_words(tmp_path / "words.txt")
    spec, output = pruned(model, text, tmp_path / "whole", [], Progress())
    removed = LAYERS * OF_A_LAYER["attention_bias"]
    counted = output.metrics.parameters
    assert counted is not None and counted.nonzero == counted.dense - removed
    report = output.report.model_dump(mode="json")
    assert [(row["layer"], row["kind"], row["before"], row["after"]) for row in report["layers"]] == [
        (layer, "biases", MOST, OF_A_LAYER["mlp_bias"]) for layer in range(LAYERS)
    ]
    share = OF_A_LAYER["attention_bias"] / MOST
    assert report["biases"] == [{"layer": layer, "share": share} for layer in range(LAYERS)]
    config, chart = (spec.artifact / "config.json").read_text(), (spec.artifact / "layers.svg").read_text()
    assert '"mlp_bias": true' in config and '"attention_bias": false' in config
    assert "biases kept" in chart and "biases gone" in chart
    card = model_card(spec.recipe, output.report.model_copy(update={"metrics": output.metrics}))
    assert f": {removed:,} of {LAYERS * MOST:,} biases. No matrix lost a weight." in card

    with pytest.raises(WorkStopped):
        pruned(model, text, tmp_path / "ended", [], Watching(stop_after=3))
    again, output = pruned(model, text, tmp_path / "again", [tmp_path / "ended"], Progress())
    assert output.report.engine.resumed_from_block
    for file in spec.artifact.glob("*.safetensors"):
        assert (again.artifact / file.name).read_bytes() == file.read_bytes()
