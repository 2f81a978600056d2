"""Webhooks over REST."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from standardwebhooks import Webhook as Verifier

from core.service.webhooks import service
from tests.webhooks.conftest import Webhooks
from tests.webhooks.receiver import Receiver


@pytest.fixture
def created(api: TestClient, receiver: Receiver) -> dict[str, Any]:
    body = {"url": receiver.url(), "description": "the pipeline", "types": ["job.failed", "job.failed"]}
    answer = api.post("/v1/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_a_webhook_is_made_shown_changed_and_removed(api: TestClient, created: dict[str, Any]) -> None:
    path = f"/v1/webhooks/{created['id']}"
    shown = api.get(path).json()
    assert created.pop("secret").startswith("whsec_") and shown == created
    assert shown["types"] == ["job.failed"] and shown["metadata"] == {} and shown["enabled"]
    assert api.get("/v1/webhooks").json()["data"] == [shown]
    changed = api.patch(path, json={"types": [], "metadata": {"branch": "main"}, "description": ""}).json()
    assert changed == shown | {"types": [], "metadata": {"branch": "main"}, "description": ""}
    disabled = api.patch(path, json={"enabled": False}).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "disabled by hand")
    assert api.post(f"{path}/ping").status_code == 409
    assert api.patch(path, json={"enabled": True}).json() == changed
    assert api.delete(path).status_code == 204 and api.get(path).status_code == 404
    assert api.delete(path).status_code == 404
    trail = [entry["action"] for entry in api.get("/v1/audit", params={"object_id": created["id"]}).json()["data"]]
    verbs = ["delete", "enable", "disable", "update", "create"]
    assert trail == [f"webhook.{verb}" for verb in verbs], "what changes nothing is not written down"


def test_a_url_that_must_not_be_called_is_refused_at_once(api: TestClient, created: dict[str, Any]) -> None:
    for answer in (
        api.post("/v1/webhooks", json={"url": "https://[::1]/hook"}),
        api.patch(f"/v1/webhooks/{created['id']}", json={"url": "https://169.254.169.254/latest/meta-data"}),
    ):
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["param"]) == (422, "unsafe_address", "url")
        assert "is not a public address" in problem["detail"] and " at " not in problem["detail"]
        assert "SECATEUR_WEBHOOK_ALLOWED_NETWORKS" in problem["detail"]
    answer = api.post("/v1/webhooks", json={"url": "https://127.0.0.1/", "types": ["job.exploded"]})
    assert answer.json()["param"] == "types.0"


def test_a_rotated_secret_is_shown_once_and_the_same_for_the_same_key(
    api: TestClient, created: dict[str, Any], receiver: Receiver, webhooks: Webhooks
) -> None:
    path = f"/v1/webhooks/{created['id']}"
    once = {"Idempotency-Key": "rotate"}
    first = api.post(f"{path}/rotate", json={}, headers=once)
    again = api.post(f"{path}/rotate", json={}, headers=once)
    assert first.status_code == 201 and first.json() == again.json() and first.json()["secret"] != created["secret"]
    assert again.headers["Idempotency-Replayed"] == "true" and "secret" not in api.get(path).json()
    api.post(f"{path}/ping")
    webhooks.dispatch()
    [received] = receiver.received
    for secret in (created["secret"], first.json()["secret"]):
        Verifier(secret).verify(received.body, received.headers)


def test_a_ping_that_is_sent_again_with_its_key_makes_one_event(api: TestClient, created: dict[str, Any]) -> None:
    path = f"/v1/webhooks/{created['id']}"
    first, again = (api.post(f"{path}/ping", headers={"Idempotency-Key": "ping"}) for _ in range(2))
    assert first.status_code == 201 and first.json() == again.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(api.get(f"{path}/deliveries").json()["data"]) == 1


def test_a_team_has_so_many_at_most(api: TestClient, created: dict[str, Any]) -> None:
    for _ in range(49):
        assert api.post("/v1/webhooks", json={"url": "https://127.0.0.1/"}).status_code == 201
    assert api.post("/v1/webhooks", json={"url": "https://127.0.0.1/"}).json()["code"] == "conflict"


def test_deliveries_are_counted_up_to_a_bound(
    api: TestClient, created: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_COUNTED", 2)
    path = f"/v1/webhooks/{created['id']}"
    counts = [api.get(path).json()["pending"]]
    for _ in range(3):
        api.post(f"{path}/ping").raise_for_status()
        counts.append(api.get(path).json()["pending"])
    assert counts == [0, 1, 2, 2]
