"""A team sees its quotas and cannot change them, and what is over them is refused; its token of the hub is written by
its admins, and shown to nobody.
"""

from contextlib import closing
from typing import Any

import httpx
import pytest
import typer
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from core.database import transaction
from core.service.teams.administration import set_limits
from core.settings import Settings
from secateur.cli import keys_app
from tests.client.command_line import RunHere
from tests.portal.browserless import Browserless
from worker.cli import register

Sessions = sessionmaker[Session]


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
    assert run("teams", "create", "pruners")[0] == 1
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


PATH = "/v1/team/hub-token"
TOKEN = "hf_a_token_that_reads"


@pytest.mark.parametrize("token", ["hf_two words", "hf_line\n", "", "hf_ü", 7, None])
def test_what_can_be_no_token_is_refused_and_not_quoted(lasting_api: TestClient, token: Any) -> None:
    refused = lasting_api.put(PATH, json={"token": token})
    assert (refused.status_code, refused.json()["param"]) == (422, "token")
    assert not isinstance(token, str) or not token or token not in refused.text
    assert lasting_api.get(PATH).json()["used"] is None


def test_the_command_line_takes_it_from_the_environment(
    here: RunHere, live_api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "without a token" in here("hub-token", "show").out
    monkeypatch.delenv("HF_TOKEN", raising=False)
    unset = here("hub-token", "set")
    assert unset.code == 2 and "HF_TOKEN" in unset.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = here("hub-token", "set")
    assert "the team's own token" in said.out and TOKEN not in said.out + said.err
    assert live_api.get(PATH).json()["used"] == "team"
    assert "without a token" in here("hub-token", "remove").out


def test_the_portal_sets_it_and_never_sends_it_back(live_api: httpx.Client, admin_key: str) -> None:
    with closing(Browserless(live_api, admin_key)) as browserless:
        assert "Private or gated models on the hub cannot be pruned" in browserless.http.get("/portal/team").text
        refused = browserless.post("/portal/team", "/portal/team/hub-token", {"token": "two words"})
        assert refused.status_code == 422 and "holds spaces" in refused.text and "two words" not in refused.text
        assert browserless.post("/portal/team", "/portal/team/hub-token", {"token": TOKEN}).status_code == 303
        page = browserless.http.get("/portal/team").text
        assert "own, set" in page and TOKEN not in page
        browserless.post("/portal/team", "/portal/team/hub-token/remove", {})
    assert live_api.get(PATH).json()["used"] is None
