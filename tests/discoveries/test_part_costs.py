"""Costs of models' parts: asked for, measured by a worker that has the engine and no job, kept, or told why not."""

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.latency.costs import ModelWidths, PartCosts, PassCosts, RoundCosts, Workload
from core.engine.latency.variants import BlockVariant
from core.pipeline.messages import PartCostsReport
from core.service.questions.queue import MOST_ATTEMPTS
from core.service.questions.tables import QuestionRow
from core.settings import Settings
from core.storage import Store
from secateur_wire.part_costs import PartCostsError
from tests.conftest import bearer
from worker.supervisor.part_cost_measurer import PartCostMeasurer

_WORK = {"engine": "llama-cpp", "type": "F16", "threads": 1, "prompt_tokens": 8, "context_tokens": 16}
_NOISY = PartCostsError(code="latency_too_noisy", message="after 9 rounds it is not known")


def _measured() -> PartCostsReport:
    """Return a report on the model of these tests."""
    costs = PassCosts(attention={1: 1.0, 2: 2.0}, ffn={3: 1.0, 12: 2.0, 24: 4.0}, vocabulary={64: 6.0}, rest=0.5)
    both = RoundCosts(prefill=costs, decode=costs)
    widths = ModelWidths(
        architecture="LlamaForCausalLM", hidden_size=16, head_size=8, heads_per_group=1, block=BlockVariant(2, 24),
        vocabulary=64, is_tied=False,
    )  # fmt: skip
    table = PartCosts(
        prefill=costs, decode=costs, rounds=[both] * 3, workload=Workload.model_validate(_WORK), model=widths,
        machine="a processor", version="llama-cpp-py-sync 1", measured_on=date(2026, 12, 1), layers=2,
    )  # fmt: skip
    return PartCostsReport(costs=table)


def _saying(place: Path, report: PartCostsReport) -> Sequence[str]:
    """Return the command of a child that answers so, whatever it is asked."""
    file = place / "answer.json"
    file.write_text(report.model_dump_json())
    return sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", str(file)


@pytest.fixture
def body(model: str) -> dict[str, Any]:
    return _WORK | {"model": model}


def _look(api: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/v1/part-costs", params=body).raise_for_status().json()
    return found


def test_costs_are_measured_once_for_all_models_of_a_shape_and_again_on_demand(
    api: TestClient, body: dict[str, Any], sessions: sessionmaker[Session], settings: Settings, store: Store,
    tmp_path: Path,
) -> None:  # fmt: skip
    assert _look(api, body)["status"] == "not_measured"
    assert api.post("/v1/part-costs", json=body).raise_for_status().json()["status"] == "waiting"
    busy = PartCostMeasurer(store, settings, is_idle=lambda: False)
    assert not busy.take_next(sessions), "a worker with a job measures nothing"
    of_another_queue = settings.model_copy(update={"worker_queue": "gpu"})
    assert not PartCostMeasurer(store, of_another_queue).take_next(sessions)
    measurer = PartCostMeasurer(store, settings, command=_saying(tmp_path, _measured()))
    assert measurer.take_next(sessions) and not measurer.take_next(sessions)
    found = _look(api, body)
    assert (found["status"], found["error"]) == ("measured", None)
    table = found["table"]
    assert table["machine"] == "a processor" and table["version"] == "llama-cpp-py-sync 1" and table["rounds"] == 3
    assert table["decode"]["ffn"] == {"3": 1.0, "12": 2.0, "24": 4.0}
    assert table["dense_prefill"] == {"milliseconds": 2 * (2.0 + 4.0) + 6.0 + 0.5, "standard_error": 0.0}
    assert _look(api, body | {"context_tokens": 20})["status"] == "not_measured", "other work has its own table"
    assert api.post("/v1/part-costs", json=body).raise_for_status().json()["status"] == "waiting"
    assert measurer.take_next(sessions)
    assert _look(api, body)["status"] == "measured"


def test_a_measurement_that_fails_says_why(
    api: TestClient, body: dict[str, Any], sessions: sessionmaker[Session], settings: Settings, store: Store,
    tmp_path: Path,
) -> None:  # fmt: skip
    api.post("/v1/part-costs", json=body).raise_for_status()
    assert PartCostMeasurer(store, settings, command=_saying(tmp_path, PartCostsReport(error=_NOISY))).take_next(
        sessions
    )
    found = _look(api, body)
    assert found["status"] == "failed" and found["error"] == _NOISY.model_dump() and found["table"] is None
    api.post("/v1/part-costs", json=body).raise_for_status()
    dying = PartCostMeasurer(store, settings, command=[sys.executable, "-c", "raise SystemExit(3)"])
    for _ in range(MOST_ATTEMPTS):
        assert _look(api, body)["status"] == "waiting"
        assert dying.take_next(sessions)
        with transaction(sessions) as session:
            row = session.scalars(select(QuestionRow)).one()
            if row.due_at is not None:
                session.execute(update(QuestionRow).values(due_at=row.used_at))
    found = _look(api, body)
    assert found["status"] == "failed" and "no worker could measure it" in found["error"]["message"]


@pytest.mark.parametrize("engine", ["llama-cpp", "transformers"])
def test_the_real_child_measures_in_its_sandbox_or_tells_that_the_machine_is_too_noisy(
    api: TestClient, body: dict[str, Any], engine: str, sessions: sessionmaker[Session], settings: Settings,
    store: Store,
) -> None:  # fmt: skip
    asked = {name: each for name, each in body.items() if name != "type"} | {"engine": engine}
    api.post("/v1/part-costs", json=asked).raise_for_status()
    assert PartCostMeasurer(store, settings).take_next(sessions)
    found = _look(api, asked)
    if found["status"] == "failed":
        assert found["error"]["code"] == "latency_too_noisy"
    else:
        assert found["status"] == "measured" and found["table"]["threads"] == 1
        assert found["table"]["dense_decode"]["milliseconds"] > 0


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"engine": "tensorrt"}, 422, "'tensorrt' is not known: use transformers, llama-cpp, openvino, onnxruntime"),
        ({"type": "int3"}, 422, "llama.cpp has no files of type 'int3': use Q8_0, F16"),
        ({"context_tokens": 4}, 422, "context_tokens 4: give a number from prompt_tokens, 8, to 40"),
        ({"queue": "nobody"}, 422, "there is no queue 'nobody'"),
        ({"model": "unknown"}, 422, "there is no model 'unknown'"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(
    api: TestClient, body: dict[str, Any], changes: dict[str, Any], status: int, said: str
) -> None:
    for answer in (api.post("/v1/part-costs", json=body | changes), api.get("/v1/part-costs", params=body | changes)):
        assert answer.status_code == status and said in answer.json()["detail"]


def test_a_viewer_looks_and_starts_nothing(api: TestClient, body: dict[str, Any], viewer_key: str) -> None:
    api.headers.update(bearer(viewer_key))
    assert _look(api, body)["status"] == "not_measured"
    assert api.post("/v1/part-costs", json=body).status_code == 403
