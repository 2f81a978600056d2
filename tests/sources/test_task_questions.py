"""Questions of zero-shot tasks from the hub: pinned when a job is submitted, fetched once, whole rows."""

import io
import json
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.pipeline.messages import TextSource
from core.service.jobs.tables import JobRow
from core.service.sources.references import TaskReference
from core.settings import Settings
from secateur.transport.retries import LONGEST_RETRY_AFTER_SECONDS
from tests.sources.conftest import card
from tests.sources.hub_server import HubState
from tests.task_questions import questions, write_questions
from worker.supervisor.inputs import JobInputs

ROWS = questions("arc_easy", 30)


def rows_as_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.fixture
def commit(hub: HubState) -> str:
    """Of a dataset with the name and the layout of ARC's."""
    return hub.add("dataset", "allenai/ai2_arc").commit(
        {
            "README.md": card({"ARC-Easy": {"test": "ARC-Easy/test-*", "validation": "ARC-Easy/validation-*"}}),
            "ARC-Easy/test-00000-of-00001.parquet": rows_as_parquet(ROWS),
            "ARC-Easy/validation-00000-of-00001.parquet": rows_as_parquet(ROWS[:3]),
        }
    )


def questions_in(source: TextSource) -> list[dict[str, Any]]:
    return [json.loads(line) for line in source.path.read_text().splitlines()]


def test_without_a_hub_tasks_are_refused_at_once_with_what_helps(
    api: TestClient, job_body: dict[str, Any], hub: HubState, settings: Settings
) -> None:
    hub.down = True
    body = job_body | {"evaluation": {"tasks": ["arc_easy", "boolq", "piqa"]}}
    for path in ("/v1/jobs", "/v1/models/inspect"):
        hub.requests.clear()
        answer = api.post(path, json=body)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["param"]) == (503, "hub_unavailable", "evaluation.tasks.0")
        assert "`secateur samples --tasks`" in problem["detail"]
        assert hub.requests and all("ai2_arc" in request for request in hub.requests), "not asked for every task"
        assert int(answer.headers["retry-after"]) > LONGEST_RETRY_AFTER_SECONDS, "no client waits for it"
    for task in ("arc_easy", "boolq", "piqa"):
        write_questions(settings.local_tasks, task)
    assert api.post("/v1/jobs", json=body).status_code == 201


def test_a_job_pins_the_commit_and_a_worker_fetches_the_split_papers_report(
    api: TestClient,
    job_body: dict[str, Any],
    sessions: sessionmaker[Session],
    node: Settings,
    sources: JobInputs,
    hub: HubState,
    commit: str,
) -> None:
    answer = api.post("/v1/jobs", json=job_body | {"evaluation": {"tasks": ["arc_easy"]}})
    assert answer.status_code == 201, answer.text
    with transaction(sessions) as session:
        [task] = [TaskReference.model_validate(each) for each in session.scalars(select(JobRow.sources)).one()["tasks"]]
    hub.repositories["dataset", "allenai/ai2_arc"].commit({"README.md": b"nothing any more"})
    source = sources.questions(task)
    assert questions_in(source) == ROWS
    assert source.origin == {
        "kind": "hub",
        "repository": "allenai/ai2_arc",
        "revision": commit,
        "config": "ARC-Easy",
        "split": "test",
    }
    here = write_questions(node.local_tasks, "arc_easy")
    assert sources.questions(task).path == here.resolve(), "a worker's own copy goes first"
