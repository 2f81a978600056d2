"""A kind of removal is a class and a row: one that is written here goes through every part of the service."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker
from torch import Tensor

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.units import UnitKind
from core.engine.cuts import Cut, Removal, RemovalPlan
from core.engine.options.axes import MethodParameters
from core.engine.pruning.blocks.language_pass import UnitRemovalPass
from core.engine.pruning.results import UnitRow
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.registry import REMOVALS
from core.engine.removals.runs import LANGUAGE_RUNS, UnitRun
from core.methods.method_info import MethodInfo
from core.methods.registry import CLASSES, METHODS
from core.pipeline.messages import ModelSource, PruneOutput, TextSource
from core.pipeline.reports.model_card import model_card
from core.pipeline.stages.pruning_spec import PruneSpec
from core.pipeline.stages.run import run_stage
from core.progress import Progress
from core.settings import Settings
from secateur_wire.errors import InvalidSparsity
from tests.engine.tiny import make_model
from tests.recipes import recipe_of
from tests.runner.models import add_model, add_text, write_model, write_words

LAYERS, OF_A_LAYER = 6, 96
"""Layers of the tiny model, and the biases of attention in each."""
BODY: dict[str, Any] = {
    "model": "biased", "method": "drop-biases", "sparsity": 0.01,
    "evaluation": {"datasets": ["words"], "samples": 8, "sequence_length": 32},
}  # fmt: skip


class BiasPlan(RemovalPlan):
    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return ()

    def remaining_counts(self, description: ModelDescription) -> dict[int, LayerCounts]:
        shapes = require_structure(description).layers
        return {layer: LayerCounts.of_all(shape, self.kinds) for layer, shape in enumerate(shapes)}


class BiasRemoval(Removal):
    def check(self, cut: Cut) -> BiasPlan:
        if cut.sparsity > 2 * self.reachable(cut)[1]:
            raise InvalidSparsity(f"sparsity {cut.sparsity:g}: so few parameters are biases", param="sparsity")
        return BiasPlan()

    def reachable(self, cut: Cut) -> Sequence[float]:
        return [0.0, LAYERS * OF_A_LAYER / cut.description.parameters]


class BiasPass(UnitRemovalPass):
    def pruned_config(self, counts: object) -> dict[str, Any]:
        return {**self.folder.raw_config, "attention_bias": False}

    def remove(self, place: int, tensors: Mapping[str, Tensor], unit_sets: object, kept: object) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias")}

    def rows_of(self, index: int, counts: object, costs: object) -> Iterator[UnitRow]:
        yield UnitRow(self.streamed.block_prefix(index), index, "biases", OF_A_LAYER, 0, OF_A_LAYER)


class DropBiases(UnitMethod):
    weight_reads = 0

    def __init__(self, parameters: MethodParameters) -> None: ...

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        return context.plan_of(context.without_layers([]))


@pytest.fixture(scope="module", autouse=True)
def biases() -> Iterator[None]:
    words = dict.fromkeys(("summary", "description"), "Removes biases.")
    method = MethodInfo(
        id="drop-biases", title="Drop biases", **words, patterns=("structured",), parameters=MethodParameters,
        removes="biases",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REMOVALS, "biases", BiasRemoval("biases"))
        patch.setitem(LANGUAGE_RUNS, "biases", UnitRun(BiasPass))
        patch.setitem(METHODS, method.id, method)
        patch.setitem(CLASSES, method.id, (f"{__name__}.DropBiases",))
        yield


def write_biased(folder: Path) -> Path:
    return make_model(write_model(folder, LAYERS), num_hidden_layers=LAYERS, attention_bias=True)


def test_it_is_listed_estimated_on_the_form_and_refused_where_it_is_out_of_reach(
    api: TestClient, sessions: sessionmaker[Session], settings: Settings, team: str, admin_key: str
) -> None:
    add_model(sessions, settings, team, "biased", write_biased(settings.models_root / "biased"))
    add_text(sessions, settings, team, "words", write_words(settings.datasets_root / "words.txt"))
    assert "drop-biases" in [each["id"] for each in api.get("/v1/methods").raise_for_status().json()["data"]]
    estimated = api.post("/v1/models/inspect", json=BODY).raise_for_status().json()
    left = estimated["parameters"] - LAYERS * OF_A_LAYER
    assert estimated["artifact"]["parameters"] == pytest.approx(left, rel=0.01)
    assert api.post("/v1/jobs", json=BODY | {"sparsity": 0.5}).json()["detail"].endswith("are biases")
    target = {"sparsity": None, "target": {"parameters": estimated["parameters"] // 2}}
    assert f"the nearest is {left:,}" in api.post("/v1/jobs", json=BODY | target).json()["detail"]
    api.post("/portal/sign-in", data={"key": admin_key})
    assert "Drop biases" in api.get("/portal/new/full?model=biased&method=drop-biases").raise_for_status().text


def test_biases_are_gone_and_report_and_card_say_so(tmp_path: Path) -> None:
    text, artifact = write_words(tmp_path / "words.txt"), tmp_path / "work" / "artifact"
    model = ModelSource(path=write_biased(tmp_path / "model"), name="biased", revision="1")
    (tmp_path / "work").mkdir()
    spec = PruneSpec(
        job="job_1", attempt=1, recipe=recipe_of(**BODY), device="cpu", threads=1, model=model,
        work=tmp_path / "work", previous=[], artifact=artifact, calibration=None, activation_budget_bytes=2**30,
        evaluation=[TextSource(name="words", path=text, format="text")],
    )  # fmt: skip
    output = run_stage(spec, Progress(), lambda: 0)
    assert isinstance(output, PruneOutput) and output.metrics.parameters is not None
    counted, removed = output.metrics.parameters, LAYERS * OF_A_LAYER
    assert counted.nonzero == counted.dense - removed
    rows = output.report.model_dump(mode="json")["layers"]
    assert [(row["kind"], row["before"], row["after"]) for row in rows] == [("biases", OF_A_LAYER, 0)] * LAYERS
    assert '"attention_bias": false' in (artifact / "config.json").read_text()
    card = model_card(spec.recipe, output.report.model_copy(update={"metrics": output.metrics}))
    assert f": {removed:,} of {removed:,} biases." in card
