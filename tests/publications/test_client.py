"""The SDK and the command line publish, and set what is kept, against the real service."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.storage import Store
from secateur import Client
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
def test_the_sdk_publishes_and_waits(live_api: httpx.Client, ended: str, hub: PushedHub) -> None:
    key = live_api.headers["Authorization"].removeprefix("Bearer ")
    with Client(str(live_api.base_url), key) as client:
        seen: list[str] = []
        made = client.publish(ended, "hub:acme/pruned", token=USERS_TOKEN, private=False, message="From the SDK")
        done = client.wait_for_publication(made.id, on_progress=lambda found: seen.append(found.status))
        assert done.finished and done.status == seen[-1] == "succeeded", done.error
        assert done.result is not None and done.result.commit and hub.messages == ["From the SDK"]
        assert [each.id for each in client.publications(ended)] == [made.id]
        again = client.publish(ended, "hub:umbrella/pruned", token=USERS_TOKEN)
        refused = client.wait_for_publication(again.id)
        assert refused.error is not None and refused.error.code == "destination_refused"


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


def test_the_command_line_takes_a_buckets_keys_from_the_environment(
    here: RunHere, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    assert "AWS_SECRET_ACCESS_KEY is not set" in here("publish", ended, "s3://bucket/x").err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    made = here("publish", ended, "s3://bucket/x", "--json").json
    assert (made["to"], made["region"], made["status"]) == ("s3://bucket/x", "eu-central-1", "queued")
    assert here("publications", "cancel", made["id"], "--json").json["status"] == "cancelled"


def test_what_is_kept_is_shown_tried_set_and_cleared(here: RunHere, ended: str) -> None:
    assert here("retention", "show").out == "Everything is kept.\n"
    assert "give --keep-days" in here("retention", "preview").err
    assert "give --keep-days" in here("retention", "set", "--keep-tagged", "keep=true").err
    options: list[Any] = ["--keep-days", "30", "--keep-tagged", "keep=true"]
    tried = here("retention", "preview", *options)
    assert tried.code == 0 and "0 artifacts would go, 1 stay" in tried.out and "stays: age" in tried.out
    policy = here("retention", "set", *options, "--json").json["policy"]
    assert policy["keep_tagged"] == {"metadata": {"keep": "true"}}
    shown = here("retention", "show").out
    assert "the last 30 days" in shown and "keep=true" in shown
    assert here("retention", "preview", "--json").json["stays"] == 1
    assert here("retention", "clear").out == "Everything is kept.\n"
