"""Hub tokens of teams: each reads what its own account may, the caches of database and nodes included."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.sources.hub_tokens import set_hub_token
from core.service.sources.schemas import HubTokenBody
from core.service.teams.server_secret import server_secret
from core.settings import Settings
from secateur_wire.errors import SecateurError
from tests.conftest import bearer
from tests.model_folders import write_llama
from tests.serving import lent_app
from tests.sources.conftest import parquet, stored_rows
from tests.sources.fleet import Fleet
from tests.sources.hub_server import TOKEN, HubState
from tests.worker.conftest import eventually

OURS, THEIRS = "hf_token_of_the_gardeners", "hf_token_of_the_foresters"
SECRET_MODEL, SECRET_TEXTS = "org/secret-model", "org/secret-texts"
WEIGHTS = "model.safetensors"
DOCUMENTS = [f"secret document {number}" for number in range(100)]


class Teams:
    """Two teams of one fleet. The first team's token reads what is secret, the second's does not yet."""

    def __init__(self, settings: Settings, sessions: sessionmaker[Session], ours: str, theirs: str) -> None:
        self.settings, self.sessions = settings, sessions
        self.ours, self.theirs = (Fleet(settings, sessions, team, settings.home) for team in (ours, theirs))

    def set_token(self, fleet: Fleet, token: str) -> None:
        with transaction(self.sessions) as session:
            body = HubTokenBody(token=SecretStr(token))
            secret = server_secret(self.settings)
            set_hub_token(session, fleet.queue.team, body, settings=self.settings, secret=secret)


@pytest.fixture
def secret_commit(hub: HubState, tmp_path: Path) -> str:
    hub.tokens = {OURS: {SECRET_MODEL, SECRET_TEXTS}, THEIRS: {"org/other"}, TOKEN: None}
    folder = write_llama(tmp_path / "llama", hidden=64, intermediate=96)
    return hub.add("model", SECRET_MODEL, private=True).commit_folder(folder)


@pytest.fixture
def teams(settings: Settings, sessions: sessionmaker[Session], team: str, other_team: str, secret_commit: str) -> Teams:
    teams = Teams(settings, sessions, team, other_team)
    teams.set_token(teams.ours, OURS)
    return teams


def body_of(commit: str) -> dict[str, Any]:
    return {"model": f"{SECRET_MODEL}@{commit}", "method": "magnitude", "sparsity": 0.5}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_what_one_teams_token_opened_is_closed_to_others_at_submit_and_on_the_node(
    teams: Teams, hub: HubState, secret_commit: str, kind: str
) -> None:
    body = body_of(secret_commit)
    if kind == "dataset":
        hub.repositories["model", SECRET_MODEL].private = False
        hub.add("dataset", SECRET_TEXTS, private=True).commit({"train.parquet": parquet(DOCUMENTS)})
        body |= {"method": "wanda", "calibration": {"dataset": SECRET_TEXTS, "samples": 2, "sequence_length": 16}}

    def refusal() -> tuple[str, str]:
        with pytest.raises(SecateurError) as caught:
            teams.theirs.submit(**body)
        return str(caught.value.problem()["code"]), caught.value.message

    first = teams.ours.submit(**body)
    assert teams.ours.work("node") == "succeeded", teams.ours.queue.job(first).error
    code, said = refusal()
    assert code == f"unknown_{kind}" and "without a hub token" in said
    teams.set_token(teams.theirs, THEIRS)
    code, said = refusal()
    assert code == f"unknown_{kind}" and "the team's hub token may not" in said
    hub.tokens[THEIRS] = {SECRET_MODEL, SECRET_TEXTS}
    waiting = [teams.theirs.submit(**body) for _ in range(2)]
    hub.served.clear()
    hub.tokens[THEIRS] = set()  # after the submit: the node has the bytes, but another team's token fetched them
    assert teams.theirs.work("node") == "failed"
    error = teams.theirs.queue.job(waiting[0]).error
    assert error is not None and error.code == f"unknown_{kind}"
    secret = WEIGHTS if kind == "model" else "train.parquet"
    assert not hub.served[secret]
    hub.tokens[THEIRS] = {SECRET_MODEL, SECRET_TEXTS}
    assert teams.theirs.work("node") == "succeeded" and hub.served[secret], "each has what it fetched itself"


def test_a_public_model_is_one_entry_for_all_and_needs_no_hub_a_second_time(
    teams: Teams, hub: HubState, secret_commit: str
) -> None:
    hub.repositories["model", SECRET_MODEL].private = False
    for number, fleet in enumerate((teams.ours, teams.theirs)):
        fleet.submit(**body_of(secret_commit))
        hub.served.clear()
        hub.requests.clear()
        assert fleet.work("node") == "succeeded"
        assert bool(hub.served) == bool(hub.requests) == (number == 0)


def inspect(client: TestClient, key: str, model: str) -> str:
    answer = client.post("/v1/models/inspect", json={"model": model}, headers=bearer(key)).json()
    return str(answer.get("code", "readable"))


@pytest.mark.parametrize(
    ("lent_to", "expected"),
    [
        ([], ("unknown_model", "unknown_model")),
        (["gardeners"], ("readable", "unknown_model")),
    ],
    ids=["nobody", "one team"],
)
def test_the_operators_token_is_used_for_the_teams_that_the_settings_name(
    settings: Settings,
    admin_key: str,
    other_team_key: str,
    secret_commit: str,
    lent_to: list[str],
    expected: tuple[str, str],
    hub: HubState,
) -> None:
    lent = settings.model_copy(update={"hub_token": SecretStr(TOKEN), "hub_token_teams": lent_to})
    with lent_app(lent) as app, TestClient(app) as client:
        for _ in range(2):  # the second time it is known
            assert tuple(inspect(client, key, SECRET_MODEL) for key in (admin_key, other_team_key)) == expected
        used = client.get("/v1/team/hub-token", headers=bearer(admin_key)).json()["used"]
        assert used == ("operator" if lent_to else None)
        client.put("/v1/team/hub-token", json={"token": THEIRS}, headers=bearer(admin_key))
        assert inspect(client, admin_key, SECRET_MODEL) == "unknown_model"  # its own goes first
    assert hub.tokens_seen[THEIRS] > 0


def test_a_token_stands_in_no_environment_no_command_line_no_log_and_no_table(
    teams: Teams, hub: HubState, secret_commit: str, api: TestClient, capfd: pytest.CaptureFixture[str]
) -> None:
    api.put("/v1/team/hub-token", json={"token": OURS}).raise_for_status()
    job = teams.ours.submit(**body_of(secret_commit))
    hub.served.clear()
    hub.bytes_per_second = 40_000
    end: list[str] = []
    working = threading.Thread(target=lambda: end.append(teams.ours.work("node")))
    working.start()
    eventually(lambda: hub.served[WEIGHTS] > 0)
    children = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            children.append((child.cmdline(), child.environ()))
    assert any("worker.fetcher" in command for command, _ in children)
    assert OURS not in str(children)
    logged = [path.read_text() for path in teams.settings.home.rglob("*.log")]
    hub.bytes_per_second = None
    working.join()
    assert end == ["succeeded"], teams.ours.queue.job(job).error
    shown = [api.get(path).text for path in ("/v1/team/hub-token", "/v1/audit", f"/v1/jobs/{job}", "/v1/team")]
    assert "hub_token.set" in shown[1]
    said = capfd.readouterr()
    assert OURS not in "".join([*logged, *shown, said.out, said.err, *stored_rows(teams.sessions)])
