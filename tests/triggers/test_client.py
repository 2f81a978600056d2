"""Triggers through the SDK and the command line, against the real service."""

import json
from pathlib import Path
from typing import Any

from tests.client.command_line import RunHere
from tests.triggers.conftest import PAYLOAD


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
