"""Bytes that one request makes the service store or answer: bounded by what was asked, whatever it is multiplied by."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.pagination import PAGE_BYTES
from core.service.jobs.tables import JobEventRow
from tests.job_rows import job_row

KEPT = ["x" * 10_000] * 6
"""Texts of almost the bytes that a job may have."""


def stored_bytes(sessions: sessionmaker[Session], *tables: str) -> int:
    counted = (f"SELECT coalesce(sum(octet_length(t::text)), 0) FROM {table} t" for table in tables)
    with transaction(sessions) as session:
        return sum(int(session.scalar(text(query)) or 0) for query in counted)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("vocabulary", {"tokens": "auto", "keep": ["x" * 10_000] * 7}),
        ("parameters", {"keep": [["é" * 40_000]]}),
        ("recovery", {"method": "lora", "lora": {"targets": ["x" * 300] * 300}}),
    ],
)
def test_a_job_with_longer_texts_is_refused_and_told_of_data_sets(
    api: TestClient, job_body: dict[str, Any], part: str, value: object
) -> None:
    answer = api.post("/v1/jobs", json=job_body | {part: value})
    assert answer.status_code == 422 and answer.json()["param"].startswith(part)
    assert "65536 bytes" in answer.json()["detail"] and "data set" in answer.json()["detail"]


def test_a_sweep_stores_its_job_once_and_each_point_only_what_differs(
    api: TestClient, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    job = {name: value for name, value in job_body.items() if name != "sparsity"}
    body = {
        "job": job | {"vocabulary": {"tokens": "auto", "keep": KEPT}},
        "grid": {"sparsity": [number / 100 for number in range(10, 60)]},
    }
    sweep = api.post("/v1/sweeps", json=body)
    assert sweep.status_code == 201, sweep.text
    sent = len(json.dumps(body))
    assert stored_bytes(sessions, "sweeps", "sweep_points") < sent + 50 * 500
    results = api.get(f"/v1/sweeps/{sweep.json()['id']}/results")
    assert len(results.json()["points"]) == 50 and len(results.content) < sent + 50 * 1500


def test_a_sweep_whose_points_repeat_long_values_or_whose_job_is_long_is_refused(
    api: TestClient, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    grid = {"vocabulary": [{"tokens": "auto", "keep": KEPT}], "priority": list(range(50))}
    repeated = api.post("/v1/sweeps", json={"job": job_body, "grid": grid})
    assert repeated.status_code == 422 and "the values of all 50 points have" in repeated.json()["detail"]
    long = api.post("/v1/sweeps", json={"job": job_body | {"parameters": {"x": "y" * 200_000}}, "grid": grid})
    assert (long.status_code, long.json()["param"]) == (422, "job") and "data set" in long.json()["detail"]
    assert stored_bytes(sessions, "sweeps", "sweep_points", "jobs") == 0


def test_a_list_of_jobs_leaves_long_texts_out_says_so_and_the_job_has_them(
    api: TestClient, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    long = job_body | {"vocabulary": {"tokens": "auto", "keep": KEPT}, "metadata": {"note": "cedar"}}
    made = api.post("/v1/jobs", json=long).raise_for_status().json()
    api.post("/v1/jobs", json=job_body).raise_for_status()
    listed = api.get("/v1/jobs")
    short, row = listed.json()["data"]
    assert len(listed.content) < 10_000 and row["id"] == made["id"] and "left_out" not in short
    assert row["vocabulary"]["keep"] == [] and "vocabulary.keep" in row["left_out"]
    assert api.get("/v1/jobs", params={"search": "cedar"}).json()["data"] == [row]
    single = api.get(f"/v1/jobs/{made['id']}").json()
    assert single["vocabulary"]["keep"] == KEPT and "left_out" not in single


def test_a_page_of_long_events_ends_early_and_goes_on_after_its_last(
    api: TestClient, sessions: sessionmaker[Session], team: str
) -> None:
    job = job_row(team)
    with transaction(sessions) as session:
        session.add(job)
        session.flush()
        session.add_all(
            JobEventRow(job_id=job.id, sequence=number, type="log", attempt=1, data={"message": "x" * 1_500_000})
            for number in range(1, 6)
        )
        path = f"/v1/jobs/{job.id}/events"
    first = api.get(path)
    assert len(first.content) < PAGE_BYTES and first.json()["has_more"] and first.json()["next_after"] == 2
    others = [api.get(path, params={"after": after}).json() for after in (2, 4)]
    assert [each["sequence"] for page in others for each in page["data"]] == [3, 4, 5]
    assert [page["has_more"] for page in others] == [True, False]
