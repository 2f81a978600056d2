"""The cost of a submission, in what many clients at once wait for each other for."""

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.state import ApiState
from bench.submits import counted

PLAIN = {"method": "magnitude", "sparsity": 0.5}


def test_a_submission_takes_few_statements_two_transactions_and_three_threads(api: TestClient, model: str) -> None:
    assert isinstance(api.app, FastAPI)
    state: ApiState = api.app.state.api
    body: dict[str, Any] = {"model": model, **PLAIN}
    assert api.post("/v1/jobs", json=body).status_code == 201  # the key's use is written down once a minute
    with counted(state.sessions.kw["bind"]) as counts:
        assert api.post("/v1/jobs", json=body).status_code == 201
        assert api.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"}).status_code == 201
    assert counts == {"statements": 9 + 11, "transactions": 2 + 2, "hops": 3 + 3}
