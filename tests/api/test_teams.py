"""A team sees its quotas and cannot change them; what is over them is refused."""

from datetime import datetime
from typing import Any

import pytest
import typer
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from core.database import transaction
from core.service.jobs.queue import claim, heartbeat, release
from core.service.jobs.quotas import get_team, list_teams
from core.service.teams.administration import create_team_with_key, set_limits
from core.service.teams.keys import authenticate
from core.service.teams.quotas import month_start
from core.service.teams.tables import TeamRow
from core.settings import Settings
from secateur.cli import keys_app
from secateur_wire.errors import Conflict, InvalidRequest, NotFound
from tests.conftest import bearer
from worker.cli import register

Sessions = sessionmaker[Session]


def test_quotas_and_use_are_shown(api: TestClient, viewer_key: str, sessions: Sessions, job_body: Any) -> None:
    with transaction(sessions) as session:
        set_limits(session, "gardeners", {"max_running": 2, "max_device_seconds": 7200, "weight": 3})
    api.post("/v1/jobs", json=job_body)
    team = api.get("/v1/team", headers=bearer(viewer_key)).json()
    assert (team["name"], team["weight"]) == ("gardeners", 3)
    assert team["quotas"] == {
        "max_running": 2,
        "max_queued": None,
        "max_device_seconds": 7200,
        "max_stored_bytes": None,
    }
    month = datetime.fromisoformat(team["usage"].pop("month_started_at"))
    assert (month.day, month.hour, month.utcoffset().total_seconds()) == (1, 0, 0)  # type: ignore[union-attr]
    assert team["usage"] == {"running": 0, "queued": 1, "device_seconds": 0, "stored_bytes": 0}


def test_no_key_sets_quotas(api: TestClient) -> None:
    for method in ("POST", "PUT", "PATCH"):
        assert api.request(method, "/v1/team", json={"quotas": {"max_running": 99}}).status_code == 405


def test_a_full_queue_is_429_with_a_time_to_come_back(api: TestClient, sessions: Sessions, job_body: Any) -> None:
    with transaction(sessions) as session:
        set_limits(session, "gardeners", {"max_queued": 1})
    first = api.post("/v1/jobs", json=job_body).json()["id"]
    refused = api.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": "once"})
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert int(refused.headers["Retry-After"]) > 0 and "1 waiting jobs" in refused.json()["detail"]
    api.post(f"/v1/jobs/{first}/cancel")
    assert api.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": "once"}).status_code == 201
    assert api.post(f"/v1/jobs/{first}/retry").json()["code"] == "quota_exceeded"
    assert api.get(f"/v1/jobs/{first}").json()["status"] == "cancelled"


def test_a_month_used_up_is_429_until_the_next(api: TestClient, sessions: Sessions, job_body: Any) -> None:
    with transaction(sessions) as session:
        set_limits(session, "gardeners", {"max_device_seconds": 3600})
        session.execute(update(TeamRow).values(device_seconds=3601, device_month=month_start()))
    refused = api.post("/v1/jobs", json=job_body)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert 0 < int(refused.headers["Retry-After"]) <= 31 * 24 * 3600
    assert api.get("/v1/team").json()["usage"]["device_seconds"] == 3601


def test_attempts_are_listed_newest_first(
    api: TestClient, sessions: Sessions, other_team_key: str, job_body: Any
) -> None:
    job = api.post("/v1/jobs", json=job_body).json()["id"]
    url = f"/v1/jobs/{job}/attempts"
    assert api.get(url).json() == {"data": [], "has_more": False, "next_after": None}
    with transaction(sessions) as session:
        for attempt in (1, 2):
            claim(session, queue="default", worker_id=f"worker_{attempt}", lease_seconds=60)
            if attempt == 1:
                release(session, job, 1, stages={"prune": 1.5})
    page = api.get(url, params={"limit": 1}).json()
    assert (page["data"][0]["attempt"], page["data"][0]["outcome"], page["has_more"]) == (2, None, True)
    page = api.get(url, params={"after": page["next_after"]}).json()
    (first,) = page["data"]
    assert (first["attempt"], first["worker_id"], first["outcome"]) == (1, "worker_1", "released")
    assert first["stages"] == {"prune": 1.5} and first["needs"]["seconds"] > 0 and not page["has_more"]
    assert api.get(url, headers=bearer(other_team_key)).status_code == 404


def test_a_job_may_name_a_queue_that_is_configured_or_served(
    api: TestClient, sessions: Sessions, job_body: Any
) -> None:
    refused = api.post("/v1/jobs", json={**job_body, "queue": "large"}).json()
    assert (refused["code"], refused["param"]) == ("unknown_queue", "queue") and "default" in refused["detail"]
    assert api.post("/v1/models/inspect", json={**job_body, "queue": "large"}).json()["code"] == "unknown_queue"
    with transaction(sessions) as session:
        heartbeat(session, "worker_1", queue="large", device="cpu", hostname="bed", pid=1)
    assert api.post("/v1/jobs", json={**job_body, "queue": "large"}).status_code == 201


def test_the_operator_founds_teams_and_sets_their_quotas(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        key = create_team_with_key(session, "pruners", {"max_running": 2}, secret=b"secret")
        assert authenticate(session, key.key, b"secret").role == "admin"
        with pytest.raises(Conflict):
            create_team_with_key(session, "pruners", {}, secret=b"secret")
        pruners = set_limits(session, "pruners", {"max_running": None, "max_stored_bytes": 10})
        assert get_team(session, pruners).quotas.max_running is None
        assert [team.name for team in list_teams(session)] == ["pruners"]
        with pytest.raises(NotFound):
            set_limits(session, "nobody", {})


@pytest.mark.parametrize(
    ("limit", "value"),
    [("max_running", -1), ("max_queued", 2**31), ("max_device_seconds", float("inf")), ("weight", 0), ("weight", None)],
)
def test_a_quota_that_cannot_be_is_refused(sessions: Sessions, team: str, limit: str, value: float | None) -> None:
    with transaction(sessions) as session, pytest.raises(InvalidRequest) as refused:
        set_limits(session, "gardeners", {limit: value})
    assert refused.value.param == limit


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101, " padded"])
def test_a_teams_name_is_a_line_of_text(sessions: Sessions, name: str) -> None:
    with transaction(sessions) as session, pytest.raises(InvalidRequest):
        create_team_with_key(session, name, {}, secret=b"secret")


def test_the_command_line_of_the_operator(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_HOME", str(settings.home))
    monkeypatch.setenv("SECATEUR_DATABASE_URL", settings.database_url or "")
    app = typer.Typer()
    app.add_typer(keys_app, name="keys")
    register(app)
    runner = CliRunner()

    def run(*words: str) -> tuple[int, str]:
        result = runner.invoke(app, words)
        return result.exit_code, result.output

    code, key = run("teams", "create", "pruners", "--max-running", "4", "--max-device-hours", "1.5")
    assert code == 0 and "sct_" in key
    code, table = run("teams", "list")
    assert code == 0 and "0 of 4" in table and "0.0 of 1.5" in table and "default" in table
    code, table = run("teams", "set", "pruners", "--max-running", "none", "--weight", "2")
    assert code == 0 and "0 of 4" not in table
    assert run("keys", "create", "--team", "pruners", "--role", "viewer")[0] == 0
    assert run("keys", "list", "--team", "pruners")[1].count("key_") == 2
    for words in (["--weight", "-1"], ["--max-running", "1.5"], ["--max-running", "inf"], []):
        assert run("teams", "set", "pruners", *words)[0] == 2, words
    assert run("teams", "set", "nobody", "--weight", "2")[0] == 1
    assert run("keys", "list", "--team", "nobody")[0] == 1
