"""The life of a discovery: from a model that nobody listed to a job that a worker takes. Traces of registered
classifiers.
"""

import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker, undefer
from transformers import MixtralConfig, MixtralForCausalLM

from core.database import transaction
from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.description import TraceAnswer, TraceQuestion
from core.engine.models.classifier import open_classifier
from core.engine.pruning.classifier_trace import trace_classifier
from core.pipeline.stages.questions import trace as answer_of
from core.service.discoveries import queue as discoveries
from core.service.jobs import queue
from core.service.jobs.queue import Claim
from core.service.registry.tables import ModelRow
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import DiscoveryFailed
from tests.discoveries.conftest import Fleet
from tests.engine.classifier_folders import make_classifier
from tests.model_folders import write_alien
from worker.supervisor.discoverer import Discoverer
from worker.supervisor.tracer import ClassifierTracer


def register(api: TestClient, folder: Path, name: str = "alien") -> dict[str, Any]:
    response = api.post("/v1/models", json={"name": name, "path": str(folder)})
    assert response.status_code == 201, response.text
    model: dict[str, Any] = response.json()
    return model


@pytest.fixture
def claim(sessions: sessionmaker[Session]) -> Callable[[], Claim | None]:
    def take() -> Claim | None:
        with transaction(sessions) as session:
            return queue.claim(session, queue="default", worker_id="worker_test", lease_seconds=60)

    return take


def test_a_job_on_a_model_that_nobody_listed_waits_until_it_is_discovered(
    api: TestClient, fleet: Fleet, alien: Path, dataset: str, claim: Callable[[], Claim | None]
) -> None:
    model = register(api, alien)
    assert model["discovery"] == {"state": "waiting", "error": None}
    assert (model["architecture"], model["layers"], model["prunable_parameters"]) == ("AlienForCausalLM", 2, 0)
    looked = api.post("/v1/models/inspect", json={"model": "alien"})
    assert looked.status_code == 202 and looked.headers["Retry-After"]
    asked = api.get(looked.headers["Location"])
    assert asked.json() == looked.json() and asked.json()["state"] == "waiting"

    body = {"model": "alien", "method": "wanda", "sparsity": 0.5, "calibration": {"dataset": dataset, "samples": 4}}
    job = api.post("/v1/jobs", json=body).json()
    assert job["status"] == "queued" and "examined" in api.get(f"/v1/jobs/{job['id']}").json()["waiting_reason"]
    early = {"invalid_parameters": {"parameters": {"no": 1}}, "invalid_sparsity": {"sparsity": None}}
    early |= {"invalid_pattern": {"pattern": "structured"}}
    told = {code: api.post("/v1/jobs", json=body | fields).json()["code"] for code, fields in early.items()}
    assert all(code == expected for expected, code in told.items()), "what needs no model is told at once"
    assert (fleet.resolve(), claim(), fleet.hints) == (0, None, [])

    assert fleet.look()
    assert api.get(looked.headers["Location"]).json()["state"] == "found"
    assert (fleet.resolve(), fleet.hints) == (1, [job["id"]])
    inspected = api.post("/v1/models/inspect", json={"model": "alien"}).json()
    assert inspected["prunable_parameters"] > 0 and any(fit["fits"] for fit in inspected["methods"])
    known = api.get("/v1/models/alien").json()
    assert known["discovery"] is None and known["prunable_parameters"] == inspected["prunable_parameters"]
    taken = claim()
    assert taken is not None and taken.job_id == job["id"] and taken.recipe.calibration is not None
    assert taken.model.discovered is not None and taken.model.discovered.architecture == "AlienForCausalLM"
    assert taken.estimate is not None and taken.recipe.calibration.sequence_length == 64
    assert api.post("/v1/jobs", json=body).json()["waiting_reason"] != job["waiting_reason"]
    actions = [entry["action"] for entry in api.get("/v1/audit").json()["data"]]
    assert {"discovery.ask", "discovery.find"} <= set(actions)
    metrics = api.get("/metrics").text
    assert 'secateur_discoveries_ended_total{error_code=""} 1.0' in metrics


def test_what_cannot_be_taken_is_refused_with_its_reason_and_ends_the_jobs_that_waited(
    api: TestClient, fleet: Fleet, alien: Path
) -> None:
    register(api, alien)
    body = {"model": "alien", "method": "magnitude", "sparsity": 0.5}
    waiting = api.post("/v1/jobs", json=body).json()["id"]
    cancelled = api.post("/v1/jobs", json=body).json()["id"]
    assert api.post(f"/v1/jobs/{cancelled}/cancel").json()["status"] == "cancelled"
    assert fleet.look("refuses")
    fleet.resolve()
    job = api.get(f"/v1/jobs/{waiting}").json()
    assert (job["status"], job["error"]["code"], job["error"]["retryable"]) == (
        "failed",
        "unsupported_architecture",
        False,
    )
    for answer in (api.post("/v1/models/inspect", json={"model": "alien"}), api.post("/v1/jobs", json=body)):
        assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_architecture")
        assert "no blocks" in answer.json()["detail"]
    assert api.get("/v1/models/alien").json()["discovery"]["state"] == "failed"
    assert api.post(f"/v1/jobs/{waiting}/retry").json()["status"] == "queued"
    fleet.resolve()
    assert api.get(f"/v1/jobs/{waiting}").json()["status"] == "failed"


@pytest.mark.parametrize(
    ("what", "changes", "said"),
    [
        ("dies", {}, "SIGSEGV"),
        ("hangs", {"discovery_seconds": 0.1}, "longer than 0.1 s"),
        ("eats", {"discovery_memory_bytes": 2**32}, "memory"),
        ("babbles", {}, "no architecture"),
    ],
)
def test_a_child_that_ends_without_an_answer_is_tried_again_and_then_given_up(
    api: TestClient, fleet: Fleet, alien: Path, what: str, changes: dict[str, Any], said: str
) -> None:
    register(api, alien)
    attempts = {"discovery_attempts": 2} | changes
    assert fleet.look(what, **attempts) and fleet.row().state == "waiting"
    assert fleet.look(what, **attempts) and not fleet.look(what, **attempts)
    row = fleet.row()
    assert row.error is not None and row.error["code"] == "discovery_failed" and said in row.error["message"]
    with transaction(fleet.sessions) as session:
        assert discoveries.forget_old(session, 180) == 0
        session.merge(row).finished_at = row.created_at.replace(year=2000)
    with transaction(fleet.sessions) as session:
        assert discoveries.forget_old(session, 180) == 1, "it may have been the machine"


def test_the_child_has_no_network_and_knows_nobody(
    api: TestClient, fleet: Fleet, alien: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_HUB_TOKEN", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    register(api, alien)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert fleet.look("tells", str(server.getsockname()[1]))
    error = fleet.row().error
    assert error is not None and error["code"] == "told"
    seen = json.loads(error["message"])
    assert seen["network"] == "Address family not supported by protocol"
    assert not [name for name in seen["environment"] if name.endswith("_TOKEN") or name.startswith("SECATEUR")]
    assert not Path(seen["home"]).exists(), "its home was its own"


def test_the_discovery_of_a_worker_that_was_killed_is_another_ones(
    api: TestClient, fleet: Fleet, alien: Path, sessions: sessionmaker[Session]
) -> None:
    register(api, alien)
    late = DiscoveryFailed("late").problem()
    version = fleet.row().transformers_version
    with transaction(sessions) as session:
        killed = discoveries.claim(
            session, worker_id="worker_killed", transformers_version=version, lease_seconds=60, most_attempts=2
        )
    assert killed is not None and not fleet.look(), "it is held"
    with transaction(sessions) as session:
        assert discoveries.renew(session, killed, 0)
    assert fleet.look() and fleet.row().state == "found"
    with transaction(sessions) as session:
        assert not discoveries.fail(session, killed, late, most_attempts=2), "whoever lost it writes nothing"


def test_a_sweep_and_a_trigger_wait_until_it_is_discovered(api: TestClient, fleet: Fleet, alien: Path) -> None:
    register(api, alien)
    template = {"model": "alien", "method": "magnitude", "sparsity": 0.5}
    trigger = api.post("/v1/triggers", json={"name": "nightly", "template": template})
    assert trigger.status_code == 201, trigger.text
    wrong = {"name": "wrong", "template": template | {"pattern": "structured"}}
    assert api.post("/v1/triggers", json=wrong).json()["code"] == "invalid_pattern"
    body = {
        "job": {"model": "alien"},
        "grid": {"method": ["magnitude", "depth"], "sparsity": [0.5]},
        "skip_invalid": True,
    }
    sweep = api.post("/v1/sweeps", json=body)
    assert sweep.status_code == 201 and "examined" in sweep.json()["waiting_for"], sweep.text
    path = f"/v1/sweeps/{sweep.json()['id']}"
    assert fleet.advance() == 0 and "examined" in api.get(path).json()["waiting_for"]
    assert fleet.look() and fleet.advance() == 1
    known = api.get(path).json()
    assert (known["waiting_for"], known["points"]["total"]) == (None, 1)
    assert [each["values"]["method"] for each in known["skipped"]] == ["depth"], "it needs a calibration text"


def test_a_team_may_have_only_so_many_that_are_not_over(
    api: TestClient, fleet: Fleet, settings: Settings, alien: Path
) -> None:
    settings.discoveries_per_team = 1
    register(api, alien)
    register(api, write_alien(settings.models_root / "other", rope_theta=5.0).absolute(), "other")
    assert api.get("/v1/models/other").json()["discovery"]["state"] == "unknown", "registered all the same"
    refused = api.post("/v1/models/inspect", json={"model": "other"})
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded") and refused.headers["Retry-After"]
    assert api.post("/v1/models/inspect", json={"model": "alien"}).status_code == 202
    assert fleet.look()
    assert api.post("/v1/models/inspect", json={"model": "other"}).status_code == 202


def test_the_real_child_discovers_a_model_that_nobody_listed(api: TestClient, fleet: Fleet, settings: Settings) -> None:
    assert "MixtralForCausalLM" not in LANGUAGE_ARCHITECTURES
    folder = settings.models_root / "mixtral"
    config = MixtralConfig(
        vocab_size=96, max_position_embeddings=64, hidden_size=32, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(folder)
    api.post("/v1/models", json={"name": "mixtral", "path": str(folder.absolute())}).raise_for_status()
    body = {"model": "mixtral", "method": "magnitude", "sparsity": 0.5}
    job_id = api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    patient = fleet.settings.model_copy(update={"discovery_seconds": 3600.0})  # whatever else the machine does
    assert Discoverer("worker_test", patient).take_next(fleet.sessions)
    assert fleet.row().state == "found", fleet.row().error
    assert fleet.resolve() == 1 and fleet.hints == [job_id]
    known = api.get("/v1/models/mixtral").json()
    assert known["discovery"] is None and known["prunable_parameters"] > 0


_JOB = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"datasets": []}}


@pytest.fixture
def classifier(settings: Settings) -> Path:
    return make_classifier(settings.models_root / "lenet", "lenet-5").absolute()


def _estimate(api: TestClient) -> dict[str, Any]:
    answer = api.post("/v1/models/inspect", json={"model": "lenet", **_JOB}).raise_for_status().json()
    estimate: dict[str, Any] = answer["estimate"]
    return estimate


@pytest.fixture
def command(classifier: Path, tmp_path: Path) -> Sequence[str]:
    """The command of a child that says what was traced here, which loads no libraries."""
    passes = trace_classifier(open_classifier(classifier), (1, 28, 28))
    answer = tmp_path / "answer.json"
    answer.write_text(TraceAnswer(passes=passes).model_dump_json())
    return sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", str(answer)


def test_a_registered_classifier_is_traced_and_its_jobs_estimated_by_that(
    api: TestClient, sessions: sessionmaker[Session], settings: Settings, store: Store, classifier: Path,
    command: Sequence[str],
) -> None:  # fmt: skip
    api.post("/v1/models", json={"name": "lenet", "path": str(classifier)}).raise_for_status()
    rough = _estimate(api)
    tracer = ClassifierTracer(store, settings, command=command)
    assert tracer.take_next(sessions) and not tracer.take_next(sessions)
    with transaction(sessions) as session:
        query = select(ModelRow).where(ModelRow.name == "lenet").options(undefer(ModelRow.description))
        passes = session.scalars(query).one().description["passes"]
    assert passes["image_shape"] == [1, 28, 28] and passes["operations"] == 4_581_000
    traced = _estimate(api)
    assert traced["floating_point_operations"] == 200 * 4_581_000 < rough["floating_point_operations"]
    assert traced["peak_memory_bytes"] != rough["peak_memory_bytes"]


def test_the_child_finds_the_same_by_config_and_headers_alone(classifier: Path) -> None:
    opened = open_classifier(classifier)
    tensors = {entry.name: (entry.dtype, entry.shape) for entry in opened.tensors.values()}
    question = TraceQuestion(config=opened.raw_config, tensors=tensors, image_shape=(1, 28, 28))
    answered = answer_of(TraceQuestion.model_validate_json(question.model_dump_json()))
    assert answered.error is None and answered.passes == trace_classifier(opened, (1, 28, 28))
    refused = answer_of(question.model_copy(update={"config": opened.raw_config | {"network": "none"}}))
    assert refused.passes is None and refused.error is not None and "none" in refused.error
