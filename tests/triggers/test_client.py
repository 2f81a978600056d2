"""Triggers through the SDK and the command line, against the real service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from secateur import Client, errors
from tests.client.command_line import RunHere
from tests.triggers.conftest import PAYLOAD


@pytest.fixture
def client(live_api: httpx.Client, admin_key: str) -> Iterator[Client]:
    with Client(str(live_api.base_url), admin_key) as opened:
        yield opened


def test_a_triggers_whole_life(client: Client, trigger_body: dict[str, Any]) -> None:
    made = client.create_trigger(**trigger_body)
    assert made.url is not None and made.signing_secret is None
    assert client.trigger("nightly").id == made.id and [each.id for each in client.triggers()] == [made.id]
    assert client.preview_trigger("nightly", PAYLOAD).job["sparsity"] == 0.6
    fired = client.fire_trigger("nightly", PAYLOAD, event_id="once")
    again = client.fire_trigger("nightly", PAYLOAD, event_id="once")
    assert (fired.outcome, again.outcome) == ("accepted", "duplicate") and fired.job_id == again.job_id
    assert fired.job_id is not None and client.job(fired.job_id).metadata["trigger"] == "nightly"
    with pytest.raises(errors.InvalidRequest, match="/commit/sha"):
        client.fire_trigger("nightly", {})
    assert [each.outcome for each in client.firings("nightly")] == ["refused", "duplicate", "accepted"]
    rotated = client.rotate_trigger("nightly", ["url"])
    assert rotated.url not in (None, made.url)
    assert not client.update_trigger("nightly", enabled=False).enabled
    with pytest.raises(errors.Conflict, match="disabled"):
        client.fire_trigger("nightly", PAYLOAD)
    client.delete_trigger("nightly")
    with pytest.raises(errors.NotFound):
        client.trigger("nightly")


def test_the_commands(here: RunHere, trigger_body: dict[str, Any], tmp_path: Path) -> None:
    definition, payload = tmp_path / "trigger.json", tmp_path / "payload.json"
    definition.write_text(json.dumps({**trigger_body, "signing": True}))
    payload.write_text(json.dumps(PAYLOAD))
    made = here("triggers", "create", str(definition))
    url, secret = made.out.splitlines()
    assert made.code == 0 and "/v1/hooks/hook_" in url and secret.startswith("whsec_") and "only this time" in made.err
    assert "nightly" in here("triggers", "list").out
    shown = here("triggers", "show", "nightly").out
    assert "${commit}" in shown and "signed payloads" in shown
    assert here("triggers", "fire", "nightly", "--payload", str(payload), "--dry-run").json["sparsity"] == 0.6
    fired = here("triggers", "fire", "nightly", "--payload", str(payload), "--event-id", "once")
    assert fired.code == 0 and fired.out.startswith("job_")
    again = here("triggers", "fire", "nightly", "--payload", str(payload), "--event-id", "once")
    assert again.out == fired.out and "had made" in again.err
    refused = here("triggers", "fire", "nightly")
    assert refused.code == 2 and "/commit/sha" in refused.err
    listed = here("triggers", "firings", "nightly")
    assert all(each in listed.out for each in ("accepted", "duplicate", "refused", "once"))
    assert len(here("triggers", "firings", "nightly", "--json").json) == 3
    assert here("triggers", "rotate", "nightly", "--secret", "signing").out.startswith("whsec_")
    assert "disabled" in here("triggers", "update", "nightly", "--disable").err
    gone = here("triggers", "versions", "nightly")
    assert gone.code == 2 and "secateur audit --action trigger.update" in gone.err
    assert here("triggers", "update", "nightly").code == 2
    definition.write_text("[]")
    assert "write a JSON object" in here("triggers", "create", str(definition)).err
    assert here("triggers", "delete", "nightly").out == "nightly is deleted.\n"
    assert here("triggers", "list", "--json").json == []
