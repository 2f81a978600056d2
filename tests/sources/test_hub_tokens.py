"""Hub tokens of teams: each reads what its own account may, the caches of database and nodes included."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.pipeline.messages import ModelSource
from core.service.sources.hub import Hub
from core.service.sources.hub_access import HubAccess, open_access
from core.service.sources.hub_datasets import find_hub_dataset
from core.service.sources.hub_tokens import find_access, remove_hub_token, set_hub_token
from core.service.sources.references import HubText, model_references
from core.service.sources.schemas import HubTokenBody
from core.service.teams.server_secret import server_secret
from core.settings import Settings
from secateur_wire.errors import GatedModel, SecateurError, UnknownModel
from tests.conftest import bearer
from tests.model_folders import write_llama
from tests.serving import lent_app
from tests.sources.conftest import parquet
from tests.sources.fleet import Fleet
from tests.sources.hub_server import TOKEN, HubState
from tests.worker.conftest import eventually
from worker.supervisor.fetched_inputs import InputFetcher
from worker.supervisor.inputs import JobInputs

OURS, THEIRS = "hf_token_of_the_gardeners", "hf_token_of_the_foresters"
SECRET_MODEL, SECRET_TEXTS = "org/secret-model", "org/secret-texts"
WEIGHTS = "model.safetensors"
DOCUMENTS = [f"secret document {number}" for number in range(100)]


class Teams:
    """Two teams on one node, each with one attempt's sources. The first team's token reads what is secret, the second's
    does not yet.
    """

    def __init__(self, settings: Settings, sessions: sessionmaker[Session], ours: str, theirs: str) -> None:
        self.settings, self.sessions = settings, sessions
        self.ours = Fleet(settings, sessions, ours, settings.home)
        self.theirs = Fleet(settings, sessions, theirs, settings.home)
        self._open = ExitStack()
        self.sources = {fleet: self._open.enter_context(self._sources(fleet)) for fleet in (self.ours, self.theirs)}

    def close(self) -> None:
        self._open.close()

    def set_token(self, fleet: Fleet, token: str) -> None:
        with transaction(self.sessions) as session:
            body = HubTokenBody(token=SecretStr(token))
            secret = server_secret(self.settings)
            set_hub_token(session, fleet.queue.team, body, settings=self.settings, secret=secret)

    def remove_token(self, fleet: Fleet) -> None:
        with transaction(self.sessions) as session:
            remove_hub_token(session, fleet.queue.team, self.settings)

    def access(self, fleet: Fleet) -> HubAccess:
        with transaction(self.sessions) as session:
            return find_access(session, fleet.queue.team, self.settings)

    def _sources(self, fleet: Fleet) -> JobInputs:
        fetcher = InputFetcher(
            self.settings,
            self.settings.work_root / fleet.queue.team,
            team_id=fleet.queue.team,
            on_message=lambda message: None,
            on_wait=lambda: None,
        )
        return JobInputs(
            fetcher,
            fleet.queue.store,
            find_access=lambda: self.access(fleet),
            write_text=lambda spec: pytest.fail(f"nothing to write: {spec}"),
        )

    def fetch(self, fleet: Fleet, job: str) -> Path:
        """Fetch the model of a submitted job as a worker does; the folder it is in. Raises what the fetcher reports."""
        reference = model_references.validate_python(fleet.queue.row(job).sources["model"])
        return self.sources[fleet].model(reference).path


def refused(fetch: Callable[[], object]) -> str:
    """The code of the error that a fetch ends with."""
    with pytest.raises(SecateurError) as caught:
        fetch()
    return str(caught.value.problem()["code"])


@pytest.fixture
def secret_commit(hub: HubState, tmp_path: Path) -> str:
    hub.tokens = {OURS: {SECRET_MODEL, SECRET_TEXTS}, THEIRS: {"org/other"}, TOKEN: None}
    folder = write_llama(tmp_path / "llama", hidden=64, intermediate=96)
    return hub.add("model", SECRET_MODEL, private=True).commit_folder(folder)


@pytest.fixture
def teams(
    settings: Settings, sessions: sessionmaker[Session], team: str, other_team: str, secret_commit: str
) -> Iterator[Teams]:
    teams = Teams(settings, sessions, team, other_team)
    teams.set_token(teams.ours, OURS)
    yield teams
    teams.close()


def body_of(commit: str) -> dict[str, Any]:
    return {"model": f"{SECRET_MODEL}@{commit}", "method": "magnitude", "sparsity": 0.5}


def test_what_one_teams_token_opened_is_closed_to_others_at_submit_and_on_the_node(
    teams: Teams, hub: HubState, secret_commit: str
) -> None:
    body = body_of(secret_commit)
    first = teams.ours.submit(**body)
    assert teams.ours.work("node") == "succeeded", teams.ours.queue.job(first).error
    with pytest.raises(UnknownModel, match="without a hub token"):
        teams.theirs.submit(**body)
    teams.set_token(teams.theirs, THEIRS)
    with pytest.raises(UnknownModel, match="the team's hub token may not"):
        teams.theirs.submit(**body)
    hub.tokens[THEIRS] = {SECRET_MODEL}
    waiting = teams.theirs.submit(**body)
    hub.served.clear()
    hub.tokens[THEIRS] = set()  # after the submit: the node has the bytes, but another team's token fetched them
    assert teams.theirs.work("node") == "failed"
    error = teams.theirs.queue.job(waiting).error
    assert error is not None and error.code == "unknown_model" and not hub.served


def test_on_a_node_each_team_has_what_it_fetched_itself_and_only_while_it_may(
    teams: Teams, hub: HubState, secret_commit: str
) -> None:
    hub.tokens[THEIRS] = {SECRET_MODEL}
    teams.set_token(teams.theirs, THEIRS)
    our_job, their_job = (fleet.submit(**body_of(secret_commit)) for fleet in (teams.ours, teams.theirs))
    ours = teams.fetch(teams.ours, our_job)
    hub.served.clear()
    assert teams.fetch(teams.theirs, their_job) != ours
    assert hub.served[WEIGHTS]
    hub.served.clear()
    teams.remove_token(teams.theirs)
    assert refused(lambda: teams.fetch(teams.theirs, their_job)) == "unknown_model"
    assert teams.fetch(teams.ours, our_job) == ours
    assert not hub.served and hub.tokens_seen[TOKEN] == 0


def test_a_revoked_token_is_told_at_the_next_submit_though_all_is_known(
    teams: Teams, hub: HubState, secret_commit: str
) -> None:
    job = teams.ours.submit(**body_of(secret_commit))
    del hub.tokens[OURS]
    with pytest.raises(GatedModel, match="does not accept the team's hub token"):
        teams.ours.submit(**body_of(secret_commit))
    assert refused(lambda: teams.fetch(teams.ours, job)) == "gated_model"


def test_a_public_model_is_one_entry_for_all_and_needs_no_hub_a_second_time(
    teams: Teams, hub: HubState, secret_commit: str
) -> None:
    hub.repositories["model", SECRET_MODEL].private = False
    for number, fleet in enumerate((teams.ours, teams.theirs)):
        job = fleet.submit(**body_of(secret_commit))
        hub.served.clear()
        hub.requests.clear()
        teams.fetch(fleet, job)
        assert bool(hub.served) == bool(hub.requests) == (number == 0)


def test_texts_are_the_teams_as_models_are(teams: Teams, hub: HubState) -> None:
    hub.add("dataset", SECRET_TEXTS, private=True).commit({"train.parquet": parquet(DOCUMENTS)})
    asked = Hub(teams.settings).with_credential(open_access(teams.access(teams.ours), teams.settings))
    found = find_hub_dataset(asked, SECRET_TEXTS, "calibration", "dataset")
    facts = {name: getattr(found, name) for name in ("repository", "revision", "config", "split", "is_public")}
    reference = HubText(name=SECRET_TEXTS, use="calibration", characters=100, **facts)

    def fetch(fleet: Fleet) -> Path:
        none = ModelSource(path=Path("none"), name="none", revision="none")
        return teams.sources[fleet].text(reference, none, "dataset").path

    ours = fetch(teams.ours)
    assert DOCUMENTS[0] in ours.read_text()
    assert refused(lambda: fetch(teams.theirs)) == "unknown_dataset"
    teams.set_token(teams.theirs, THEIRS)
    hub.tokens[THEIRS] = {SECRET_TEXTS}
    assert fetch(teams.theirs) != ours
    hub.served.clear()
    hub.tokens[THEIRS] = set()
    assert refused(lambda: fetch(teams.theirs)) == "unknown_dataset"
    assert fetch(teams.ours) == ours and not hub.served


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
    assert OURS not in "".join([*logged, *shown, said.out, said.err, *stored(teams.sessions)])


def stored(sessions: sessionmaker[Session]) -> list[str]:
    """Every row of every table, as text; bytes as the characters they are where they are ASCII."""
    with transaction(sessions) as session:
        session.execute(text("SET LOCAL bytea_output = 'escape'"))
        tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        rows = [row for table in tables for row in session.scalars(text(f'SELECT t::text FROM "{table}" AS t'))]
    assert any("gAAAA" in row for row in rows)  # what is sealed is among them
    return rows
