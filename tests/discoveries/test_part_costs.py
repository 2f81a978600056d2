"""Costs of models' parts: asked for, measured by a worker that has the engine and no job, kept, or told why not."""

import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.pipeline.messages import PartCostsReport
from core.service.jobs.queue import heartbeat
from core.service.questions.queue import MOST_ATTEMPTS
from core.service.questions.tables import QuestionRow
from core.settings import Settings
from core.storage import Store
from secateur_wire.part_costs import PartCostsError
from tests.conftest import bearer
from tests.measured_parts import WORK, measured_report, saying
from worker.supervisor.part_cost_measurer import PartCostMeasurer

_WORKER: dict[str, Any] = {"queue": "default", "device": "cpu", "hostname": "bed", "pid": 1}
_NOISY = PartCostsError(code="latency_too_noisy", message="after 9 rounds it is not known")


@pytest.fixture
def body(model: str) -> dict[str, Any]:
    return WORK | {"model": model}


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
    measurer = PartCostMeasurer(store, settings, command=saying(tmp_path, measured_report()))
    assert measurer.take_next(sessions) and not measurer.take_next(sessions)
    found = _look(api, body)
    assert (found["status"], found["error"]) == ("measured", None)
    table = found["table"]
    assert table["machine"] == "a processor" and table["version"] == "llama-cpp-py-sync 1" and table["rounds"] == 3
    assert [(each["size"], each["decode_ms"]) for each in table["ffn"]] == [(3, 1.0), (12, 2.0), (24, 4.0)]
    assert table["dense"]["prefill_ms"] == 2 * (2.0 + 4.0) + 6.0 + 0.5
    assert table["dense_standard_error"] == {"prefill_ms": 0.0, "decode_ms": 0.0}
    assert _look(api, body | {"context_tokens": 20})["status"] == "not_measured", "other work has its own table"
    assert api.post("/v1/part-costs", json=body).raise_for_status().json()["status"] == "waiting"
    assert measurer.take_next(sessions)
    assert _look(api, body)["status"] == "measured"


def test_a_measurement_that_fails_says_why(
    api: TestClient, body: dict[str, Any], sessions: sessionmaker[Session], settings: Settings, store: Store,
    tmp_path: Path,
) -> None:  # fmt: skip
    api.post("/v1/part-costs", json=body).raise_for_status()
    assert PartCostMeasurer(store, settings, command=saying(tmp_path, PartCostsReport(error=_NOISY))).take_next(
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


@pytest.mark.nightly  # minutes where times are noisy; tests of the engine measure in the suite
@pytest.mark.parametrize(("engine", "type"), [("llama-cpp", "F16"), ("transformers", "float32")])
def test_the_real_child_measures_in_its_sandbox_or_tells_that_the_machine_is_too_noisy(
    api: TestClient, body: dict[str, Any], engine: str, type: str, sessions: sessionmaker[Session], settings: Settings,
    store: Store,
) -> None:  # fmt: skip
    asked = body | {"engine": engine, "type": type}
    api.post("/v1/part-costs", json=asked).raise_for_status()
    assert PartCostMeasurer(store, settings).take_next(sessions)
    found = _look(api, asked)
    if found["status"] == "failed":
        assert found["error"]["code"] == "latency_too_noisy"
    else:
        assert found["status"] == "measured" and found["table"]["threads"] == 1
        assert found["table"]["dense"]["decode_ms"] > 0


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


def test_an_engine_that_no_worker_of_the_queue_has_is_refused_by_name(
    api: TestClient, body: dict[str, Any], sessions: sessionmaker[Session]
) -> None:
    with transaction(sessions) as session:
        heartbeat(session, "worker_test", **_WORKER, runtimes=["OpenVINO"])
    answer = api.post("/v1/part-costs", json=body)
    assert answer.status_code == 422
    assert "no worker of queue 'default' has llama.cpp: install it on a worker" in answer.json()["detail"]
    with transaction(sessions) as session:
        heartbeat(session, "worker_other", **_WORKER, runtimes=["llama.cpp"])
    assert api.post("/v1/part-costs", json=body).status_code == 200
