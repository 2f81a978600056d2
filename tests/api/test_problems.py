import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.settings import Settings
from tests.conftest import job_on

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


NAME_RULE = "1 to 96 lowercase letters a to z, digits, dots, hyphens and underscores, the first a letter or a digit"


def test_a_name_is_refused_by_its_rule_in_words(api: TestClient) -> None:
    for path, name in (("/v1/datasets", "Größe"), ("/v1/models", "模型")):
        problem = problem_of(api.post(path, json={"name": name, "path": "/x"}), 422, "invalid_request", "name")
        assert problem["detail"] == f"name: {name!r} is not valid here: use {NAME_RULE}"
        assert problem["errors"] == [{"param": "name", "message": problem["detail"]}]


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("calibration", "x", 'an object such as {"dataset": "x"} with dataset, and where wanted samples, '),
        ("recovery", "lora", 'an object such as {"method": "lora"} with method, and where wanted steps, '),
        ("evaluation", ["x"], "an object with any of datasets, sequence_length, "),
        ("target", 0.5, "an object with any of parameters, bytes, latency_ratio, decode_ratio, "),
        ("metadata", "x", "a JSON object, not a string"),
    ],
)
def test_what_is_no_object_is_told_the_fields_that_are_expected(
    lasting_api: TestClient, field: str, given: Any, expected: str
) -> None:
    answer = lasting_api.post("/v1/jobs", json=job_on("tiny", "numbers") | {field: given})
    problem = problem_of(answer, 422, "invalid_request", field)
    assert problem["detail"].startswith(f"{field}: expected {expected}")


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


FITTING: list[tuple[str, Any]] = [("evaluation", {}), ("metadata", {})]
"""Fields of a job and values of theirs that are right."""


def test_values_of_the_wrong_kind_are_refused(api: TestClient, job_body: dict[str, Any]) -> None:
    for name in job_body:
        values: tuple[Any, ...] = (True, 1.5, "text", [], {}, [[]], {"a": {}}, -1, 10**20)
        for value in values:
            response = api.post("/v1/jobs", json=job_body | {name: value})
            if (name, value) in FITTING:
                assert response.status_code == 201, (name, value, response.text)
                continue
            assert response.status_code == 422, (name, value, response.text)
            problem = response.json()
            assert problem["param"].partition(".")[0] == name, (name, value, problem)


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
