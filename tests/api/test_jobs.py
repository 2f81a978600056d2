from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from api.app import create_app
from core.database import transaction
from core.engine.architectures.describe import describe_folder
from core.service.jobs.queue import claim, finish_succeeded
from core.service.jobs.tables import JobEventRow, JobRow
from core.service.sources.folders import content_hash
from core.service.sources.references import StoredModel
from core.settings import Settings
from core.storage import LocalStore, artifact_prefix
from tests.conftest import bearer
from tests.model_folders import write_llama
from tests.task_questions import write_questions

Sessions = sessionmaker[Session]


def test_submit_answers_with_the_job_and_its_defaults(
    api: TestClient, job_body: dict[str, Any], sessions: Sessions
) -> None:
    response = api.post("/v1/jobs", json=job_body)
    assert response.status_code == 201, response.text
    job = response.json()
    assert job["id"].startswith("job_")
    assert (job["object"], job["status"], job["progress"], job["attempt"]) == ("job", "queued", 0, 0)
    assert (job["stage"], job["error"], job["metrics"], job["started_at"], job["finished_at"]) == (None,) * 5
    assert job["pattern"] == "unstructured" and job["parameters"]["variant"] is False
    assert job["calibration"] == {"dataset": "numbers", "samples": 8, "sequence_length": 32, "seed": 0}
    evaluation = {"datasets": ["numbers"], "samples": 4, "sequence_length": 32, "tasks": [], "task_limit": None}
    assert job["evaluation"] == evaluation | {"prompts": [], "prompt_tokens": 48}
    assert job["model_revision"].startswith("sha256:")
    assert api.get(f"/v1/jobs/{job['id']}").json() == job
    with transaction(sessions) as session:
        event = session.scalars(select(JobEventRow).where(JobEventRow.job_id == job["id"])).one()
        assert (event.sequence, event.type, event.data["status"]) == (1, "status", "queued")


def test_submit_succeeds_while_the_broker_is_down(
    settings: Settings, job_body: dict[str, Any], member_key: str, sessions: Sessions
) -> None:
    down = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(down)) as client:
        response = client.post("/v1/jobs", json=job_body, headers=bearer(member_key))
        assert response.status_code == 201
        ready = client.get("/readyz")
        assert ready.status_code == 200 and ready.json()["checks"]["broker"] is False
    with transaction(sessions) as session:  # the dispatcher will send it
        assert session.scalars(select(JobRow.dispatched_at)).one() is None


def test_tasks_are_asked_of_the_hub_unless_there_is_a_local_copy(
    api: TestClient, job_body: dict[str, Any], settings: Settings
) -> None:
    change = {"evaluation": {"tasks": ["winogrande", "piqa"], "task_limit": 8}}
    write_questions(settings.local_tasks, "winogrande")
    problem = api.post("/v1/jobs", json=job_body | change)
    assert (problem.status_code, problem.json()["code"], problem.json()["param"]) == (
        503, "hub_unavailable", "evaluation.tasks.1",
    )  # fmt: skip
    without = api.post("/v1/models/inspect", json=job_body).json()["estimate"]
    write_questions(settings.local_tasks, "piqa")
    answer = api.post("/v1/jobs", json=job_body | change)
    assert (answer.status_code, answer.json()["evaluation"]["tasks"]) == (201, ["winogrande", "piqa"])
    needs = api.post("/v1/models/inspect", json=job_body | change).json()["estimate"]
    assert needs["forward_tokens"] > without["forward_tokens"] and needs["seconds"] > without["seconds"]


def test_pages_of_jobs_follow_a_cursor_without_gap_or_repeat(
    api: TestClient, job_body: dict[str, Any], sessions: Sessions
) -> None:
    submitted = [api.post("/v1/jobs", json=job_body).json()["id"] for _ in range(5)]
    with transaction(sessions) as session:  # at the same instant: the id decides
        session.execute(update(JobRow).values(created_at="2026-01-01T00:00:00Z"))
    seen: list[str] = []
    after = None
    for expected in (2, 2, 1):
        page = api.get("/v1/jobs", params={"limit": 2} | ({"after": after} if after else {})).json()
        assert len(page["data"]) == expected
        assert page["has_more"] is (expected == 2) and (page["next_after"] is None) is (expected == 1)
        seen += [job["id"] for job in page["data"]]
        after = page["next_after"]
    assert seen == sorted(submitted, reverse=True)
    whole = api.get("/v1/jobs", params={"limit": len(submitted)}).json()
    assert len(whole["data"]) == len(submitted) and not whole["has_more"]
    bad = api.get("/v1/jobs", params={"after": "nonsense"})
    assert (bad.status_code, bad.json()["param"]) == (422, "after")


def test_lists_are_filtered(api: TestClient, job_body: dict[str, Any]) -> None:
    wanda = api.post("/v1/jobs", json=job_body).json()["id"]
    magnitude = api.post("/v1/jobs", json=job_body | {"method": "magnitude", "metadata": {"a": "1", "b": "2"}}).json()[
        "id"
    ]
    api.post(f"/v1/jobs/{wanda}/cancel")

    def listed(**filters: str) -> list[str]:
        return [job["id"] for job in api.get("/v1/jobs", params=filters).raise_for_status().json()["data"]]

    assert listed(status="cancelled") == listed(method="wanda") == [wanda]
    assert listed(status="queued") == [magnitude]
    assert listed(model="tiny") == [magnitude, wanda] and listed(model="other") == []
    assert listed(**{"metadata.a": "1"}) == listed(**{"metadata.a": "1", "metadata.b": "2"}) == [magnitude]
    assert listed(**{"metadata.a": "2"}) == []
    assert listed(search="TINY magnit") == listed(search=magnitude) == [magnitude] and listed(search="oak") == []
    assert listed(sort="oldest") == listed(sort="finished") == [wanda, magnitude]
    assert listed(sort="method") == listed(sort="status", search="tiny") == [magnitude, wanda]
    assert api.get("/v1/jobs", params={"sort": "colour"}).json()["param"] == "sort"
    after = api.get("/v1/jobs", params={"sort": "model", "limit": 1}).json()["next_after"]
    assert "sorted by 'model', not by 'newest'" in api.get("/v1/jobs", params={"after": after}).json()["detail"]


def test_cancel_and_retry_are_idempotent(api: TestClient, job_body: dict[str, Any]) -> None:
    job = api.post("/v1/jobs", json=job_body).json()["id"]
    for _ in range(2):
        assert api.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
    for _ in range(2):
        assert api.post(f"/v1/jobs/{job}/retry").json()["status"] == "queued"
    statuses = [event["data"]["status"] for event in api.get(f"/v1/jobs/{job}/events").json()["data"]]
    assert statuses == ["queued", "cancelled", "queued"]
    noted = api.get("/v1/audit", params={"object_id": job}).json()["data"]
    assert [entry["action"] for entry in noted] == ["job.retry", "job.cancel", "job.submit"]


@pytest.mark.parametrize(
    ("part", "field", "successor"),
    [
        ({"method": "alps", "parameters": {"conjugate_gradient_steps": 10}}, "method", "'frontier'"),
        ({"evaluation": {"answers": {"datasets": ["questions"], "seed": 7}}}, "evaluation.answers.seed", "greedily"),
        ({"evaluation": {"datasets": ["simple-tasks:add"]}}, "evaluation", "evaluation.tasks"),
        ({"recovery": {"method": "lora", "until": {"gain_per_minute": 0.1}}}, "recovery.until", "'minutes'"),
        ({"parameters": {"compensation": {"ridge": "auto"}}}, "parameters.compensation.ridge", "0.01"),
    ],
)
def test_a_job_with_what_has_left_still_shows_and_its_retry_names_the_successor(
    api: TestClient, job_body: dict[str, Any], sessions: Sessions, part: dict[str, Any], field: str, successor: str
) -> None:
    job = api.post("/v1/jobs", json=job_body).json()["id"]
    api.post(f"/v1/jobs/{job}/cancel")
    with transaction(sessions) as session:
        row = session.get_one(JobRow, job)
        row.method, row.body = part.get("method", row.method), row.body | part
        row.sources = row.sources | {"evaluation": [{"kind": "simple_tasks", "name": "simple-tasks:add"}]}
    assert [each["id"] for each in api.get("/v1/jobs").json()["data"]] == [api.get(f"/v1/jobs/{job}").json()["id"]]
    for refused in (api.post(f"/v1/jobs/{job}/retry"), api.post("/v1/jobs", json=job_body | part)):
        answer = refused.json()
        assert refused.status_code == 422 and answer["param"].startswith(field) and successor in answer["detail"]


def finished(api: TestClient, body: dict[str, Any], sessions: Sessions, store: LocalStore, settings: Settings) -> str:
    """A job that succeeded, with a model for an artifact."""
    job: str = api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    folder = write_llama(settings.work_root / job, seed=1)
    (folder / "secateur.json").write_text("{}")
    files = store.publish(folder, artifact_prefix(job, 1))
    with transaction(sessions) as session:
        claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
        assert claimed is not None and claimed.job_id == job
        report = {"layers": [], "artifact": describe_folder(folder).model_dump(mode="json")}
        assert finish_succeeded(session, job, 1, metrics={"a": 1}, report=report, files=files)
    return job


def test_the_artifact_of_a_job_is_a_model(
    api: TestClient,
    job_body: dict[str, Any],
    sessions: Sessions,
    store: LocalStore,
    settings: Settings,
    other_team_key: str,
) -> None:
    first = finished(api, job_body, sessions, store, settings)
    second = api.post("/v1/jobs", json=job_body | {"model": f"job:{first}"})
    assert second.status_code == 201, second.text
    assert second.json()["model_revision"] != api.get(f"/v1/jobs/{first}").json()["model_revision"]
    with transaction(sessions) as session:
        claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
    assert claimed is not None and isinstance(claimed.model, StoredModel)
    assert claimed.model.prefix == artifact_prefix(first, 1)
    assert claimed.model.revision == content_hash(store.folder(claimed.model.prefix))
    third = api.post("/v1/jobs", json=job_body | {"model": f"job:{second.json()['id']}"})
    assert third.json()["code"] == "unknown_model" and "only a job that succeeded" in third.json()["detail"]
    foreign = api.post("/v1/models/inspect", json={"model": f"job:{first}"}, headers=bearer(other_team_key))
    assert foreign.json()["code"] == "unknown_model"


def test_inspect_is_a_dry_run_of_submit(api: TestClient, job_body: dict[str, Any]) -> None:
    answer = api.post("/v1/models/inspect", json=job_body).raise_for_status().json()
    job = api.post("/v1/jobs", json=job_body).json()
    assert {name: job[name] for name in answer["job"]} == answer["job"]
    assert answer["estimate"]["disk_bytes"] > answer["bytes"]
    assert answer["estimate"]["peak_memory_bytes"] > 0
    assert len(api.get("/v1/jobs").json()["data"]) == 1


PARAMETERS = 6480
"""Of the model; 4352 of them are prunable, and 4 bytes each."""
STRUCTURED = {"method": "llm-pruner"}


@pytest.fixture
def body(job_body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job_body.items() if name != "sparsity"}


@pytest.mark.parametrize(
    ("change", "sparsity"),
    [
        (STRUCTURED | {"target": {"parameters": 4860}}, 0.25),
        (
            {"target": {"bytes": 4 * (PARAMETERS - 2176) + 4352 // 8}, "output": {"format": "packed"}},
            0.5 + 0.5 / 16,
        ),
    ],
)
def test_a_target_is_kept_as_given_beside_the_sparsity_it_means_and_the_recipe_runs_again(
    api: TestClient, body: dict[str, Any], change: dict[str, Any], sparsity: float
) -> None:
    inspected = api.post("/v1/models/inspect", json=body | change).raise_for_status().json()["job"]
    job = api.post("/v1/jobs", json=body | change).raise_for_status().json()
    for answer in (inspected, job):
        assert answer["target"] == change["target"]
        assert answer["sparsity"] == pytest.approx(sparsity, abs=1e-12)
    again = api.post("/v1/jobs", json=inspected).raise_for_status().json()
    assert (again["target"], again["sparsity"]) == (job["target"], job["sparsity"])
    other = api.post("/v1/jobs", json=inspected | {"sparsity": job["sparsity"] + 0.01})
    assert (other.status_code, other.json()["code"], other.json()["param"]) == (422, "invalid_sparsity", "sparsity")
    assert "leave one of them out" in other.json()["detail"]


def test_a_latency_leaves_the_sparsity_to_the_worker_and_counts_in_the_estimate(
    api: TestClient, body: dict[str, Any]
) -> None:
    asked = body | STRUCTURED
    without = api.post("/v1/models/inspect", json=asked | {"sparsity": 0.25}).json()["estimate"]
    answer = api.post("/v1/models/inspect", json=asked | {"target": {"latency_ratio": 0.7}}).raise_for_status().json()
    assert (answer["job"]["target"], answer["job"]["sparsity"]) == ({"latency_ratio": 0.7}, None)
    assert answer["estimate"]["forward_tokens"] > without["forward_tokens"]
    assert {each["method"] for each in answer["methods"] if each["fits"]} >= {"depth", "llm-pruner"}
    job = api.post("/v1/jobs", json=answer["job"]).raise_for_status().json()
    assert (job["target"], job["sparsity"], job["pattern"]) == ({"latency_ratio": 0.7}, None, "structured")
