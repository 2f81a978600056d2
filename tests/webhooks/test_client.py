"""Webhooks through the command line, and so through the SDK, against the real service; and URLs that are refused."""

from functools import partial

import pytest
from fastapi.testclient import TestClient

from tests.client.command_line import RunHere
from tests.webhooks.conftest import Webhooks
from tests.webhooks.receiver import Receiver


@pytest.fixture
def here(here: RunHere) -> RunHere:
    """The commands on webhooks."""
    return partial(here, "webhooks")


def test_a_webhook_is_made_tried_changed_and_removed(here: RunHere, receiver: Receiver, webhooks: Webhooks) -> None:
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


def test_a_url_that_must_not_be_called_is_refused_at_once(
    api: TestClient, webhooks: Webhooks, receiver: Receiver
) -> None:
    for answer in (
        api.post("/v1/webhooks", json={"url": "https://[::1]/hook"}),
        api.patch(
            f"/v1/webhooks/{webhooks.add(receiver.url()).id}", json={"url": "https://169.254.169.254/latest/meta-data"}
        ),
    ):
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["param"]) == (422, "unsafe_address", "url")
        assert "is not a public address" in problem["detail"] and " at " not in problem["detail"]
        assert "SECATEUR_WEBHOOK_ALLOWED_NETWORKS" in problem["detail"]
    answer = api.post("/v1/webhooks", json={"url": "https://127.0.0.1/", "types": ["job.exploded"]})
    assert answer.json()["param"] == "types.0"
