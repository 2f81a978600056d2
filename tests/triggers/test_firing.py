"""Firing by URL and by hand: one event makes one job, whatever is wrong makes none and is written down."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from fastapi.testclient import TestClient

from api.app import create_app
from core.settings import Settings
from tests.client.command_line import RunHere
from tests.conftest import bearer
from tests.triggers.conftest import PAYLOAD, Fixed, make_trigger


def test_a_payload_at_the_url_makes_the_job_of_the_template(trigger: Fixed) -> None:
    answer = trigger.hook(headers={"Idempotency-Key": "push-1"})
    firing = answer.json()
    assert (answer.status_code, firing["outcome"], firing["source"]) == (201, "accepted", "url")
    job = trigger.api.get(f"/v1/jobs/{firing['job_id']}").json()
    assert job["sparsity"] == 0.6
    assert job["metadata"] == {"commit": "0123abc", "from": "ci/0123abc", "trigger": "nightly"}
    (kept,) = trigger.firings()
    assert kept == firing
    assert (kept["event_id"], kept["payload"], kept["address"]) == ("push-1", PAYLOAD, "testclient")


def test_fifty_at_once_with_one_event_make_one_job_and_all_name_it(
    live_api: httpx.Client, trigger_body: dict[str, Any]
) -> None:
    issued = live_api.post("/v1/triggers", json=trigger_body).raise_for_status().json()

    def fire(_: int) -> httpx.Response:
        return httpx.post(issued["url"], json=PAYLOAD, headers={"webhook-id": "evt_1"}, timeout=60)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(fire, range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    (job,) = live_api.get("/v1/jobs").json()["data"]
    assert {answer.json()["job_id"] for answer in answers} == {job["id"]}
    firings = live_api.get(f"/v1/triggers/{issued['id']}/firings", params={"limit": 200}).json()["data"]
    assert sorted(each["outcome"] for each in firings) == ["accepted"] + ["duplicate"] * 49


def test_the_events_id_is_read_from_the_payload_where_the_trigger_says_so(
    member_api: TestClient, trigger_body: dict[str, Any]
) -> None:
    trigger = make_trigger(member_api, trigger_body, event_id="/run/id")
    first, second = (trigger.hook({**PAYLOAD, "run": {"id": 7}}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.json()["job_id"] == first.json()["job_id"] and second.json()["event_id"] == "7"
    missing = trigger.hook()
    assert missing.status_code == 422 and "/run/id" in missing.json()["detail"]
    assert len(trigger.jobs()) == 1


def test_five_megabytes_are_413_make_nothing_and_are_in_the_history(trigger: Fixed) -> None:
    for send in (trigger.hook, lambda body: trigger.api.post(f"{trigger.path}/fire", content=body)):
        answer = send(b'{"commit": "' + b"a" * 5_000_000 + b'"}')
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert "1048576" in answer.json()["detail"]
    assert trigger.jobs() == []
    for kept in trigger.firings():
        assert (kept["outcome"], kept["error"]["code"], kept["payload"]) == ("refused", "payload_too_large", None)
        assert kept["payload_bytes"] > 5_000_000


UNFIT: list[tuple[Any, list[str]]] = [
    ({}, ["commit", "/commit/sha", "nothing"]),
    ({"commit": {"sha": 7}}, ["commit", "/commit/sha", "a number", "string"]),
    ({"commit": {"sha": "main; rm -rf"}}, ["commit", "/commit/sha", "[0-9a-f]{7,40}"]),
    ({"commit": {"sha": "0123abc\n"}}, ["does not match"]),
    ({**PAYLOAD, "sparsity": "0.5"}, ["sparsity", "a string", "number"]),
    ({**PAYLOAD, "sparsity": 0.95}, ["sparsity", "more than 0.9"]),
    (b"{not json", ["not valid JSON"]),
    (b"[" * 10_000, ["nested"]),
]


def test_a_payload_that_does_not_fit_makes_none_and_says_why(trigger: Fixed) -> None:
    for payload, says in UNFIT:
        answer = trigger.hook(payload)
        assert answer.status_code == 422, answer.text
        assert all(each in answer.json()["detail"] for each in says), answer.json()["detail"]
        kept = trigger.firings()[0]
        assert (kept["outcome"], kept["error"]["message"]) == ("refused", answer.json()["detail"])
    assert len(trigger.firings()) == len(UNFIT) and trigger.jobs() == []


def test_what_a_payload_puts_in_is_data_and_is_checked_as_any_job(
    member_api: TestClient, trigger_body: dict[str, Any]
) -> None:
    body = trigger_body | {
        "template": {**trigger_body["template"], "model": "${model}", "sparsity": 0.5},
        "placeholders": {**trigger_body["placeholders"], "model": {"path": "/model"}},
    }
    trigger = make_trigger(member_api, body)
    for model in ("${commit}", "{{ 7 * 7 }}", "{0.__class__}", "$${commit}", '{"$payload": "commit"}'):
        answer = trigger.hook({**PAYLOAD, "model": model})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_model"), answer.text
        assert repr(model) in answer.json()["detail"]
    assert trigger.hook({**PAYLOAD, "model": ""}).json()["param"] == "model"
    assert trigger.jobs() == []


def test_a_wrong_or_rotated_token_is_404_and_leaves_no_trace(trigger: Fixed) -> None:
    rotated = trigger.api.post(f"{trigger.path}/rotate", json={}).json()
    for url in (trigger.url, "/v1/hooks/hook_wrong", f"/v1/hooks/{trigger.issued['id']}"):
        answer = trigger.api.post(url, json=PAYLOAD)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert url.rpartition("/")[2] not in answer.text, "what is answered may be logged"
    assert trigger.firings() == []
    assert trigger.api.post(rotated["url"], json=PAYLOAD).status_code == 201


def test_a_disabled_trigger_makes_none_until_it_is_enabled(trigger: Fixed) -> None:
    trigger.api.patch(trigger.path, json={"enabled": False}).raise_for_status()
    for answer in (trigger.hook(), trigger.api.post(f"{trigger.path}/fire", json=PAYLOAD)):
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "disabled" in answer.json()["detail"]
    assert [each["outcome"] for each in trigger.firings()] == ["refused", "refused"]
    trigger.api.patch(trigger.path, json={"enabled": True}).raise_for_status()
    assert trigger.hook().status_code == 201


def test_a_trigger_over_its_rate_is_429_and_another_is_not(
    settings: Settings, member_key: str, trigger_body: dict[str, Any]
) -> None:
    few = settings.model_copy(update={"trigger_firings_per_minute": 3})
    with TestClient(create_app(few), raise_server_exceptions=False) as client:
        client.headers.update(bearer(member_key))
        busy, calm = (make_trigger(client, trigger_body, name=name) for name in ("busy", "calm"))
        statuses = [busy.hook().status_code for _ in range(5)]
        assert statuses[0] == 201 and statuses[-1] == 429
        refused = busy.hook()
        assert refused.json()["code"] == "rate_limited" and int(refused.headers["Retry-After"]) >= 1
        assert calm.hook().status_code == 201


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
    assert here("triggers", "delete", "nightly").out == "nightly is deleted.\n"
    assert here("triggers", "list", "--json").json == []
