import json
from typing import Any

from fastapi.testclient import TestClient

from core.settings import Settings

PROBLEM = "application/problem+json"


def problem_of(response: Any, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    assert response.headers["content-type"] == PROBLEM, response.text
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"], problem["code"], problem["param"]) == (status, status, code, param)
    assert problem["type"] == f"urn:secateur:problem:{code}" and problem["title"] and problem["detail"]
    return problem


def test_unknown_routes_and_methods_are_problem_documents(api: TestClient) -> None:
    assert problem_of(api.get("/nowhere"), 404, "not_found")["instance"] == "/nowhere"
    problem_of(api.get("/v1/jobs/"), 404, "not_found")
    response = api.put("/v1/jobs")
    problem_of(response, 405, "method_not_allowed")
    assert "GET" in response.headers["allow"] or "POST" in response.headers["allow"]


def test_validation_errors_name_every_field(api: TestClient) -> None:
    response = api.post("/v1/jobs", json={"model": "a", "calibration": {"dataset": "b", "samples": "many"}, "x": 1})
    problem = problem_of(response, 422, "invalid_request", "method")
    assert {each["param"] for each in problem["errors"]} == {"method", "calibration.samples", "x"}
    problem_of(api.get("/v1/jobs?limit=0"), 422, "invalid_request", "limit")
    problem_of(api.post("/v1/jobs", json=[1]), 422, "invalid_request")
    problem_of(api.post("/v1/jobs"), 422, "invalid_request")
    problem_of(api.post("/v1/jobs", content=b"{}", headers={"Content-Type": "text/plain"}), 422, "invalid_request")


BODIES = {
    "not json": b"{",
    "not utf-8": b'{"model": "\xff"}',
    "nan": b'{"sparsity": NaN}',
    "infinity": b'{"sparsity": 1e999}',
    "nul": rb'{"model": "a\u0000"}',
    "nul in a name": rb'{"metadata": {"a\u0000": "b"}}',
    "surrogate": rb'{"model": "\ud800"}',
    "deep list": b"[" * 200_000,
    "deep closed list": b'{"parameters":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep object": b'{"parameters":' * 5_000 + b"1" + b"}" * 5_000,
    "forty levels": b'{"parameters":' + b"[" * 40 + b"]" * 40 + b"}",
    "huge integer": b'{"priority": ' + b"9" * 5_000 + b"}",
    "large integer": b'{"priority": 99999999999999999999999999}',
    "empty": b"",
    "null": b"null",
    "string": b'"a"',
}


def test_a_body_nobody_can_mean_is_a_problem_never_a_crash(api: TestClient) -> None:
    for path in ("/v1/jobs", "/v1/models/inspect", "/v1/keys", "/v1/models", "/v1/datasets"):
        for name, body in BODIES.items():
            response = api.post(path, content=body, headers={"Content-Type": "application/json"})
            assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM), (path, name)


def test_a_body_that_is_too_long_is_413(api: TestClient, settings: Settings) -> None:
    long = json.dumps({"model": "a" * settings.max_body_bytes}).encode()
    problem_of(api.post("/v1/jobs", content=long), 413, "payload_too_large")

    def chunks() -> Any:
        for start in range(0, len(long), 65536):
            yield long[start : start + 65536]

    problem_of(api.post("/v1/jobs", content=chunks()), 413, "payload_too_large")


def test_nul_characters_in_addresses_are_refused(api: TestClient) -> None:
    for path in ("/v1/jobs/a%00b", "/v1/jobs?model=a%00b", "/v1/jobs?metadata.a=%00", "/v1/models/%00"):
        assert api.get(path).status_code == 422
