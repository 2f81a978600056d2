"""Webhooks through the SDK and the command line, against the real service."""

from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import pytest
from standardwebhooks import Webhook as Verifier

from secateur import Client, errors
from tests.client.command_line import RunHere
from tests.webhooks.conftest import Webhooks
from tests.webhooks.receiver import Receiver


@pytest.fixture
def here(here: RunHere) -> RunHere:
    """The commands on webhooks."""
    return partial(here, "webhooks")


def test_the_sdk_makes_tries_changes_and_removes(
    live_api: httpx.Client, admin_key: str, receiver: Receiver, webhooks: Webhooks
) -> None:
    with Client(str(live_api.base_url), admin_key) as client:
        with pytest.raises(errors.UnsafeAddress, match="not a public address"):
            client.create_webhook("https://[::1]/")
        made = client.create_webhook(receiver.url(), types=["job.failed"], metadata={"branch": "main"})
        assert client.webhook(made.id).metadata == {"branch": "main"} and made.types == ["job.failed"]
        rotated = client.rotate_webhook_secret(made.id, grace_seconds=0).secret
        receiver.answers = [500] * 4
        ping = client.ping_webhook(made.id)
        webhooks.dispatch()
        [failed] = client.deliveries(made.id, state="failed", type="webhook.ping")
        assert failed.id == ping.id and len(client.delivery(made.id, ping.id).log) == 4
        assert client.replay_failed(made.id, datetime.now(UTC) - timedelta(hours=1)) == 1
        assert client.replay_delivery(made.id, ping.id).state == "pending"
        webhooks.dispatch()
        Verifier(rotated).verify(receiver.received[-1].body, receiver.received[-1].headers)
        changed = client.change_webhook(made.id, types=[], metadata={}, enabled=False)
        assert changed.types == [] and changed.metadata == {} and changed.disabled_reason == "disabled by hand"
        assert [each.id for each in client.webhooks()] == [made.id]
        client.delete_webhook(made.id)
        with pytest.raises(errors.NotFound):
            client.webhook(made.id)


def test_the_command_line_does_too(here: RunHere, receiver: Receiver, webhooks: Webhooks) -> None:
    assert "no webhooks" in here("list").out
    created = here("create", receiver.url(), "--type", "job.failed", "--metadata", "branch=main")
    assert created.code == 0 and created.out.startswith("whsec_") and "shown only this time" in created.err
    [webhook] = here("list", "--json").json
    assert "job.failed, branch=main" in here("list").out and "enabled" in here("show", webhook["id"]).out
    receiver.answers = [500] * 4
    ping = here("ping", webhook["id"], "--json").json
    webhooks.dispatch()
    listed = here("deliveries", webhook["id"], "--state", "failed").out
    assert ping["id"] in listed and "answered 500" in listed
    shown = here("delivery", webhook["id"], ping["id"]).out
    assert "webhook.ping" in shown and "answered 500" in shown and '"timestamp"' in shown
    assert "failing since" in here("show", webhook["id"]).out
    assert here("replay", webhook["id"]).code == 2
    assert here("replay", webhook["id"], "--failed-since", "2026-01-01").out == "1 delivery will be sent again.\n"
    assert "pending" in here("replay", webhook["id"], ping["id"]).out
    webhooks.dispatch()
    assert "delivered" in here("deliveries", webhook["id"]).out
    assert "disabled by hand" in here("disable", webhook["id"]).out
    assert "job.failed" not in here("update", webhook["id"], "--all-types", "--description", "pipeline").out
    assert "enabled" in here("enable", webhook["id"]).out
    assert here("rotate", webhook["id"], "--grace-hours", "1").out.startswith("whsec_")
    assert "is removed" in here("delete", webhook["id"]).out
    refused = here("create", "https://[::1]/")
    assert refused.code == 2 and "unsafe_address" in refused.err
