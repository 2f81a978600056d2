import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest
from httpx_sse import EventSource, ServerSentEvent
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.database_url import libpq_url
from core.service.jobs.queue import (
    append_event,
    claim,
    finish_cancelled,
    finish_succeeded,
    request_cancel,
    set_progress,
)
from core.settings import Settings
from tests.conftest import bearer
from tests.serving import lent_app, served
from tests.worker.conftest import eventually

Sessions = sessionmaker[Session]


def stream(client: httpx.Client, job: str, last: int | None = None) -> Iterator[ServerSentEvent]:
    headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": str(last)})
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as response:
        assert response.status_code == 200, response.read()
        yield from EventSource(response).iter_sse()


def submit(client: httpx.Client, body: dict[str, Any]) -> str:
    job: str = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    return job


def take(sessions: Sessions) -> int:
    with transaction(sessions) as session:
        claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
        assert claimed is not None
        return claimed.attempt


def test_a_page_of_events_goes_on_from_a_number(
    live_api: httpx.Client, job_body: dict[str, Any], sessions: Sessions
) -> None:
    job = submit(live_api, job_body)
    take(sessions)
    with transaction(sessions) as session:
        append_event(session, job, 1, "log", {"level": "info", "message": "hello"})
    page = live_api.get(f"/v1/jobs/{job}/events", params={"limit": 2}).json()
    assert ([event["sequence"] for event in page["data"]], page["has_more"], page["next_after"]) == ([1, 2], True, 2)
    rest = live_api.get(f"/v1/jobs/{job}/events", params={"after": 2}).json()
    assert (len(rest["data"]), rest["has_more"], rest["next_after"]) == (1, False, 3)
    event = rest["data"][0]
    assert set(event) == {"sequence", "type", "created_at", "attempt", "data"}
    assert (event["type"], event["data"]) == ("log", {"level": "info", "message": "hello"})


def test_a_stream_shows_events_as_they_come_and_ends_with_the_job(
    live_api: httpx.Client, job_body: dict[str, Any], sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.events.stream.KEEP_ALIVE_SECONDS", 600)  # nobody looks of their own accord
    job = submit(live_api, job_body)
    seen: list[tuple[str, dict[str, Any]]] = []

    def watch() -> None:
        for event in stream(live_api, job):
            assert event.event == json.loads(event.data)["type"]
            assert event.id == str(json.loads(event.data)["sequence"])
            seen.append((event.id, json.loads(event.data)["data"]))

    def await_event(number: str) -> None:
        eventually(lambda: seen and seen[-1][0] == number)

    watcher = threading.Thread(target=watch)
    watcher.start()
    await_event("1")
    take(sessions)
    for number, progress in (("3", 0.25), ("4", 0.5)):
        with transaction(sessions) as session:
            set_progress(session, job, 1, progress)
        await_event(number)
    with transaction(sessions) as session:
        finish_succeeded(session, job, 1, metrics={}, report={}, files=[])
    watcher.join(timeout=60)
    assert not watcher.is_alive()
    assert [number for number, _ in seen] == ["1", "2", "3", "4", "5"]
    assert seen[-1][1] == {"status": "succeeded"}


def test_a_stream_is_taken_up_after_the_last_event(
    live_api: httpx.Client, job_body: dict[str, Any], sessions: Sessions
) -> None:
    job = submit(live_api, job_body)
    take(sessions)
    with transaction(sessions) as session:
        set_progress(session, job, 1, 0.5)
        request_cancel(session, job)
        finish_cancelled(session, job, 1)
    assert [event.id for event in stream(live_api, job, last=2)] == ["3", "4", "5"]
    assert list(stream(live_api, job, last=5)) == []
    assert [event.id for event in stream(live_api, job)] == ["1", "2", "3", "4", "5"]


def test_a_stream_survives_the_loss_of_its_database_connection(
    live_api: httpx.Client, job_body: dict[str, Any], settings: Settings
) -> None:
    job = submit(live_api, job_body)
    events = stream(live_api, job)
    assert next(events).id == "1"
    with psycopg.connect(libpq_url(settings.database_url or ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    live_api.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    assert [event.id for event in events] == ["2"]


def test_a_stream_does_not_outlive_its_key(
    live_api: httpx.Client, job_body: dict[str, Any], sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.events.stream.KEEP_ALIVE_SECONDS", 600)
    job = submit(live_api, job_body)
    key = live_api.post("/v1/keys", json={"name": "short", "role": "viewer"}).json()
    with httpx.Client(base_url=live_api.base_url, headers=bearer(key["key"])) as client:
        events = stream(client, job)
        assert next(events).id == "1"
        live_api.delete(f"/v1/keys/{key['id']}").raise_for_status()
        take(sessions)
        assert next(events, None) is None


def test_a_key_and_a_team_and_all_have_so_many_streams_and_health_answers(
    settings: Settings, live_api: httpx.Client, job_body: dict[str, Any], admin_key: str, other_team_key: str
) -> None:
    job = submit(live_api, job_body)
    few = settings.model_copy(update={"event_streams": 8})
    keys = [live_api.post("/v1/keys", json={"name": str(n), "role": "viewer"}).json()["key"] for n in range(4)]
    with (
        lent_app(few) as app,
        served(app) as url,
        httpx.Client(base_url=url) as client,
        ExitStack() as held,
    ):
        path, asked = f"/v1/jobs/{job}/events", {"Accept": "text/event-stream"}

        def open_stream(key: str) -> httpx.Response:
            return held.enter_context(client.stream("GET", path, headers={**asked, **bearer(key)}))

        def refusal(key: str) -> str:
            answer = client.get(path, headers={**asked, **bearer(key)})
            assert answer.status_code == 429 and int(answer.headers["Retry-After"]) >= 1
            return str(answer.json()["detail"])

        opened = [open_stream(key) for key in keys]
        assert {each.status_code for each in opened} == {200}
        assert "you may have 1 in" in refusal(keys[0]) and "your team may have 4 in" in refusal(admin_key)
        assert client.get("/healthz").status_code == 200
        assert client.get(path, headers=bearer(keys[0])).status_code == 200, "events without a stream"
        theirs = client.get(path, headers={**asked, **bearer(other_team_key)})
        assert theirs.status_code == 404, "another team is not refused for these"
        opened[0].close()
        assert eventually(lambda: open_stream(keys[0]).status_code == 200)


def test_a_server_that_stops_ends_its_streams(live_api: httpx.Client, job_body: dict[str, Any]) -> None:
    """The fixture asserts that the server ends while this stream is open."""
    job = submit(live_api, job_body)
    opened = stream(live_api, job)
    assert next(opened).id == "1"
