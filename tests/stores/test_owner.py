"""Two installations on one store: the second one is refused, and neither removes what is the other's."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from core.database import session_factory, transaction
from core.service.retention.orphans import sweep_orphans
from core.service.teams.installation import installation_id, open_own_store
from core.service.teams.tables import InstallationRow
from core.settings import Settings
from core.storage import OwnedStore, Store, find_owner, open_store
from secateur.cli.keys import keys_app
from secateur_wire.errors import StoreOfAnother
from tests.databases import fresh_database
from tests.serving import lent_app
from tests.stored import put
from tests.stores.conftest import write_artifact
from worker.cli import register
from worker.dispatcher.clock import DutyRun, make_duties
from worker.prepare import prepare
from worker.tasks import Connections, run_eligible_jobs

Sessions = sessionmaker[Session]
MODEL = "models/model_first"


@pytest.fixture
def settings(settings: Settings, store_settings: Settings) -> Settings:
    """The first installation, on each kind of store in turn; every file is old enough to be swept."""
    of_store = {name: value for name, value in store_settings if name.startswith("store_")}
    return settings.model_copy(update=of_store | {"orphan_seconds": -2.0, "home": store_settings.home})


@pytest.fixture
def second(settings: Settings, postgres_url: str) -> Iterator[Settings]:
    """Another installation that names the first one's store."""
    with fresh_database(postgres_url) as url:
        yield settings.model_copy(update={"database_url": url})


@pytest.fixture
def second_sessions(second: Settings) -> Iterator[Sessions]:
    factory = session_factory(second)
    yield factory
    factory.kw["bind"].dispose()


@pytest.fixture
def marked(settings: Settings, sessions: Sessions) -> OwnedStore:
    """The store, of the first installation."""
    store = open_own_store(settings, sessions)
    store.require_own()
    return store


def ids(*factories: Sessions) -> list[str]:
    found = []
    for factory in factories:
        with transaction(factory) as session:
            found.append(installation_id(session))
    return found


def test_neither_of_two_installations_sweeps_the_others_models(
    marked: OwnedStore, settings: Settings, sessions: Sessions, second: Settings, second_sessions: Sessions
) -> None:
    put(marked, MODEL, "a", b"a")
    first_id, second_id = ids(sessions, second_sessions)
    store = open_own_store(second, second_sessions)
    with pytest.raises(StoreOfAnother) as refused:
        sweep_orphans(second_sessions, store, second)
    for named in (first_id, second_id, "SECATEUR_STORE_URL", "SECATEUR_HOME", "secateur store take-over"):
        assert named in refused.value.message
    assert marked.usage(MODEL) is not None, "the second installation swept it"
    assert sweep_orphans(sessions, marked, settings) == [MODEL], "the first sweeps what is its own"


def test_the_second_installation_writes_and_removes_nothing(
    marked: OwnedStore, second: Settings, second_sessions: Sessions, tmp_path: Path
) -> None:
    put(marked, MODEL, "a", b"a")
    store = open_own_store(second, second_sessions)
    for write in (
        lambda: store.publish(write_artifact(tmp_path / "artifact", a_txt=b"a"), "job_1/attempt-1"),
        lambda: store.incoming("uploads/upload_1", "a"),
        lambda: store.join(MODEL, [], "models/model_1", "a"),
        lambda: store.create("owner", "other", b""),
        lambda: store.delete(MODEL),
        store.unfinished,
    ):
        with pytest.raises(StoreOfAnother):
            write()
    assert b"".join(store.open_range(MODEL, "a", 0, 1)) == b"a" and not store.is_usable()
    assert sorted(marked.children()) == ["models", "owner"]


def test_the_second_installation_does_not_start_work(
    marked: OwnedStore,
    sessions: Sessions,
    second: Settings,
    second_sessions: Sessions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(StoreOfAnother):
        prepare(second)
    connections = Connections(second_sessions, open_own_store(second, second_sessions))
    run_eligible_jobs(second, connections, threading.Event())  # claims none, whatever waits
    assert connections.store.refused is not None
    refused = {"orphans", "unknown artifacts"}
    for duty in make_duties(second_sessions, second):
        if duty.name in refused:
            refused.remove(duty.name)
            with pytest.raises(StoreOfAnother):
                duty.run(DutyRun(second_sessions, second))
    assert not refused
    with lent_app(second) as app, TestClient(app) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 503 and answer.json()["checks"]["store"] is False
    assert "belongs to another installation" in answer.json()["detail"]
    both = ids(sessions, second_sessions)
    assert not any(each in answer.text for each in both), "anybody may ask"
    assert all(each in caplog.text for each in both)


def test_a_restored_database_is_the_same_owner(
    marked: OwnedStore, second: Settings, second_sessions: Sessions, sessions: Sessions
) -> None:
    [first_id] = ids(sessions)
    with transaction(second_sessions) as session:  # as a dump brings it
        session.add(InstallationRow(id=first_id))
    store = open_own_store(second, second_sessions)
    put(store, MODEL, "b", b"b")
    assert store.refusal() is None


def test_an_operator_takes_a_store_over(
    marked: OwnedStore,
    sessions: Sessions,
    second: Settings,
    second_sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first_id, second_id = ids(sessions, second_sessions)
    for name, value in second:
        if name in ("home", "database_url") or (name.startswith("store_") and value is not None):
            secret = getattr(value, "get_secret_value", lambda value=value: value)()
            monkeypatch.setenv(f"SECATEUR_{name.upper()}", str(secret))
    app = typer.Typer()
    app.add_typer(keys_app, name="keys")
    register(app)

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["store", *words], env=dict(os.environ))
        return result.exit_code, result.output

    assert run("take-over")[0] == 2 and find_owner(marked) == first_id
    code, shown = run("owner", "--json")
    assert code == 0 and first_id in shown and second_id in shown
    code, said = run("take-over", "--yes")
    assert code == 0 and first_id in said and second_id in said
    put(open_own_store(second, second_sessions), MODEL, "b", b"b")


def test_only_what_the_service_writes_is_swept(settings: Settings, marked: OwnedStore, sessions: Sessions) -> None:
    """A bucket may hold other things: those of an installation below a prefix, and what others upload in parts."""
    raw: Store = open_store(settings)
    for prefix in ("models/owner", "models/models", "nested/job_1", "uploads/mine"):
        put(raw, prefix, "a", b"a")
    others = raw.incoming("elsewhere/backup", "large.bin")
    others.write(b"0" * 6 * 2**20)  # S3 has a part of it
    try:
        assert list(raw.unfinished())
        assert sweep_orphans(sessions, marked, settings) == []
        assert list(raw.unfinished())
    finally:
        others.discard()
    assert sorted(raw.children("models")) == ["models", "owner"] and list(raw.children("uploads")) == ["mine"]
