"""No body is read or parsed for a caller whom the route does not know, and none but a short one on the event loop."""

import asyncio
import json
import threading
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.http.bodies import BODY_LIMITS, parse_body
from api.openapi.document import operations, required_role
from api.state import TeamSlots
from core.service.teams.tokens import new_token
from core.settings import Settings
from secateur_wire.errors import InvalidRequest

NESTED = b"[" + b"[[[[]]]]," * 10_000 + b"[]]"


class Unread:
    """Body that must not be asked for: an ASGI `receive`."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        return {"type": "http.request", "body": NESTED, "more_body": False}


def status_of(app: FastAPI, method: str, path: str, receive: Unread, token: str | None = None) -> int:
    """Return the status that a request is answered with."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(NESTED)).encode())]
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.upper(),
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("192.0.2.7", 1),
        "server": ("127.0.0.1", 80),
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask() -> None:
        await app(scope, receive, send)

    asyncio.run(ask())
    return int(next(each["status"] for each in sent if each["type"] == "http.response.start"))


def test_no_body_is_read_before_the_key_is_checked(api: TestClient, viewer_key: str) -> None:
    app: Any = api.app
    document = app.openapi()
    called = [(method, path) for method, path, operation in operations(document) if required_role(operation)]
    assert len(called) > 50
    for method, path in called:
        for token in (None, new_token()):
            receive = Unread()
            status = status_of(app, method, path.replace("{", "x").replace("}", ""), receive, token)
            assert (status, receive.asked) == (401, 0), (method, path)
    receive = Unread()
    assert status_of(app, "post", "/v1/jobs", receive, viewer_key) == 403 and receive.asked == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" + b"[]," * BODY_LIMITS.values + b"[]]", "holds more than"),
        (b'{"a":[' + b"0," * BODY_LIMITS.values + b"0]}", "holds more than"),
        (b"[" * (BODY_LIMITS.values + 1), "holds more than"),
    ],
)
def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(
    body: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr(json, "loads", never)
    with pytest.raises(InvalidRequest, match=reason):
        parse_body(body)


def test_a_body_is_refused_for_what_it_holds() -> None:
    levels = BODY_LIMITS.levels
    assert parse_body(b"[" * levels + b"]" * levels)
    assert parse_body(b'{"a": 1, "a": 2}') == {"a": 2}  # as ever
    for body, reason in (
        (b"[" * (levels + 1) + b"]" * (levels + 1), f"nested deeper than {levels} levels"),
        (b"[" * 5000 + b"]" * 5000, f"nested deeper than {levels} levels"),
        (b"[NaN]", "NaN"),
        (b"[1e999]", "too large"),
        (rb'["\u0000"]', "NUL"),
        (rb'{"\u0000": 1}', "NUL"),
        (rb'[{"a": "\ud800"}]', "surrogate"),
        (b'["\xff"]', "not valid JSON"),
        (b"{", "not valid JSON"),
    ):
        with pytest.raises(InvalidRequest, match=reason):
            parse_body(body)


def test_a_team_that_holds_its_slots_holds_up_nobody_else() -> None:
    ends = threading.Event()
    begun = threading.Semaphore(0)

    def wait() -> str:
        begun.release()
        ends.wait(120)
        return "slow"

    async def scenario() -> None:
        slots = TeamSlots(4, slots_of_a_team=2)
        slow = [asyncio.create_task(slots.run("slow", wait)) for _ in range(10)]
        for _ in range(2):
            await asyncio.to_thread(begun.acquire)
        for _ in range(10):
            assert await slots.run("other", lambda: "quick") == "quick"
        assert not begun.acquire(blocking=False), "two of its ten run"
        assert not any(task.done() for task in slow)
        ends.set()
        assert await asyncio.gather(*slow) == ["slow"] * 10

    asyncio.run(scenario())


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
    "nan": b'{"sparsity": NaN}',
    "infinity": b'{"sparsity": 1e999}',
    "nul": rb'{"model": "a\u0000"}',
    "deep closed list": b'{"parameters":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "forty levels": b'{"parameters":' + b"[" * 40 + b"]" * 40 + b"}",
    "huge integer": b'{"priority": ' + b"9" * 5_000 + b"}",
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
