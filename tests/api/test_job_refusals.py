"""Requests that cannot be meant: each named by what is wrong and what would be right, and nothing is queued."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import job_on

REFUSALS: list[tuple[str, str, str, dict[str, Any]]] = json.loads(
    Path(__file__).with_name("refusals.json").read_text("utf-8")
)
"""Rows: what is wrong, the error's code and field, and how the body differs from one that can be run."""


@pytest.mark.parametrize(("code", "param", "change"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_what_cannot_be_meant_is_refused_before_it_is_queued(
    lasting_api: TestClient, code: str, param: str, change: dict[str, Any]
) -> None:
    body = job_on("tiny", "numbers") | change
    response = lasting_api.post("/v1/jobs", json=body)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["param"]) == (422, code, param), problem
    inspected = lasting_api.post("/v1/models/inspect", json=body)
    if param == "calibration":  # which one who only asks need not have
        assert inspected.json()["assumed"][0].startswith("calibration on "), inspected.json()
        return
    assert (inspected.status_code, inspected.json()["code"], inspected.json()["param"]) == (422, code, param)
    assert lasting_api.get("/v1/jobs").json()["data"] == []


def test_a_message_says_what_would_help(lasting_api: TestClient) -> None:
    answers = [
        lasting_api.post("/v1/jobs", json=job_on(model, "numbers") | change).json()["detail"]
        for model, change in (("tinny", {}), ("tiny", {"sparsty": 0.5}))
    ]
    assert "'tiny'?" in answers[0] and "'sparsity'?" in answers[1]
