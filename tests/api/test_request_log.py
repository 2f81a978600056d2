"""Every request has an id, one log line and a place in the metrics."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from core.logs import configure_logs
from core.settings import Settings
from tests.conftest import bearer


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"log_format": "json"}))


@pytest.fixture
def client(app: FastAPI, admin_key: str) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False, headers=bearer(admin_key)) as client:
        yield client


def lines(written: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.splitlines()]


def test_a_request_is_logged_with_its_route_team_and_key(
    client: TestClient, capsys: pytest.CaptureFixture[str], team: str
) -> None:
    answer = client.get("/v1/jobs/job_nothing", headers={"X-Request-Id": "from-the-proxy-1"})
    assert answer.headers["X-Request-Id"] == "from-the-proxy-1"
    [line] = [line for line in lines(capsys.readouterr().err) if line["event"] == "request"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/v1/jobs/{job_id}", 404)
    assert line["request_id"] == "from-the-proxy-1" and line["team"] == team
    assert line["key"].startswith("key_") and line["ms"] > 0 and line["timestamp"].endswith("Z")


@pytest.mark.parametrize("asked", ["", "two words", 'quote"', "x" * 200, "ümlaut".encode().decode("latin-1")])
def test_an_id_that_is_not_sane_is_replaced(client: TestClient, asked: str) -> None:
    given = client.get("/healthz", headers={"X-Request-Id": asked.encode("latin-1")}).headers["X-Request-Id"]
    assert given.startswith("req_") and given != client.get("/healthz").headers["X-Request-Id"]


def test_refused_and_failing_requests_have_an_id_too(
    app: FastAPI, client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a fault of ours")

    assert client.get("/broken").status_code == 500
    assert client.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}).status_code == 422
    client.get("/no/such/place")
    written = lines(capsys.readouterr().err)
    statuses = [(line["route"], line["status"]) for line in written if line["event"] == "request"]
    assert statuses == [("/broken", 500), ("/v1/jobs", 422), ("-", 404)]
    [fault] = [line for line in written if line["event"] == "unexpected error"]
    assert "a fault of ours" in fault["exception"] and fault["request_id"].startswith("req_")


def test_lines_of_libraries_come_in_the_same_form(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings.model_copy(update={"log_format": "json"}))
    logging.getLogger("celery.worker").warning("lost %s", "the broker")
    logging.getLogger("celery.worker").info("noise")
    [line] = lines(capsys.readouterr().err)
    assert (line["event"], line["logger"], line["level"]) == ("lost the broker", "celery.worker", "warning")
    configure_logs(settings)
    logging.getLogger("uvicorn.error").warning("a line\nand its end")
    written = capsys.readouterr().err
    assert written.count("\n") == 1 and 'level=warning event="a line\\nand its end"' in written


def test_head_of_the_root_answers_as_get(client: TestClient) -> None:
    for path in ("/", "/portal", "/portal/"):
        got, head = (client.request(method, path, follow_redirects=False) for method in ("GET", "HEAD"))
        assert head.status_code == got.status_code == 303, path
        assert head.headers["location"] == got.headers["location"] and head.content == b""
