"""The SDK and the command line publish, and set what is kept, against the real service."""

from pathlib import Path

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.client.command_line import RunHere
from tests.publications.conftest import FILES, USERS_TOKEN
from tests.publications.pushable_hub import PushedHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client


@pytest.fixture
def ended(live_api: httpx.Client, sessions: sessionmaker[Session], store: Store, tmp_path: Path, model: str) -> str:
    return succeeded_job(live_api, sessions, store, tmp_path / "artifact", model=model, files=FILES)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client looks again soon."""
    monkeypatch.setattr("secateur.operations.retention._LOOK_SECONDS", 0.05)


@pytest.mark.usefixtures("dispatcher")
def test_the_command_line_takes_the_token_from_the_environment(
    here: RunHere, ended: str, hub: PushedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    unset = here("publish", ended, "hub:acme/pruned")
    assert unset.code == 2 and "HF_TOKEN is not set" in unset.err
    monkeypatch.setenv("MY_TOKEN", USERS_TOKEN)
    done = here("publish", ended, "hub:acme/pruned", "--token-env", "MY_TOKEN", "--revision", "half", "--wait")
    assert done.code == 0, done.err
    assert f"{hub.endpoint}/acme/pruned/commit/" in done.out and f"{len(FILES)} of {len(FILES)} files" in done.out
    assert USERS_TOKEN not in done.out + done.err and hub.repositories["model", "acme/pruned"].private
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    failed = here("publish", ended, "hub:acme/pruned", "--wait", "--json")
    assert failed.code == 1 and failed.json["error"]["param"] == "token" and "does not accept" in failed.err
    listed = here("publications", "list", ended).out
    assert "succeeded" in listed and "failed" in listed
    assert here("publications", "show", failed.json["id"]).out.count("hub:acme/pruned") == 1
    over = here("publications", "cancel", failed.json["id"])
    assert over.code == 2 and "has failed" in over.err
