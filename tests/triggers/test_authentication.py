"""Who may fire a trigger at its URL: signatures, the hub's secret, and what the hub tells."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks.webhooks import Webhook

from core.database import transaction
from core.service.triggers.firing import read_hub_event
from core.service.triggers.schemas import HubSource
from tests.triggers.conftest import PAYLOAD, Fixed, make_trigger

HEAD = "c379e821c9c95d613899e8c4343e4bfee2b0c600"
REPOSITORY = "gardeners/oak"


def signed(secret: str, body: bytes, *, at: datetime | None = None, event: str = "evt_1") -> dict[str, str]:
    moment = at or datetime.now(UTC)
    return {
        "webhook-id": event,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(event, moment, body.decode()),
    }


@pytest.fixture
def signing(member_api: TestClient, trigger_body: dict[str, Any]) -> Fixed:
    return make_trigger(member_api, trigger_body, signing=True)


BODY = json.dumps(PAYLOAD).encode()


def test_a_signed_payload_makes_one_job_and_its_replay_none(signing: Fixed) -> None:
    assert signing.issued["signing_secret"].startswith("whsec_")
    headers = signed(signing.issued["signing_secret"], BODY)
    first, replayed = signing.hook(BODY, headers=headers), signing.hook(BODY, headers=headers)
    assert (first.status_code, replayed.status_code) == (201, 200)
    assert replayed.json()["job_id"] == first.json()["job_id"] and first.json()["event_id"] == "evt_1"


def unproven(secret: str) -> list[dict[str, str]]:
    """Headers that prove nothing of `BODY`."""
    good = signed(secret, BODY)
    return [
        {},
        signed(secret, BODY, at=datetime.now(UTC) - timedelta(minutes=6)),
        signed(secret, b'{"commit": {"sha": "fedcba9"}}'),
        good | {"webhook-id": "evt_2"},
        signed("whsec_" + "A" * 43 + "=", BODY),
        good | {"webhook-signature": "v1,%%% nothing"},
    ]


def test_what_is_not_signed_as_it_should_be_makes_none(signing: Fixed) -> None:
    refused = unproven(signing.issued["signing_secret"])
    for headers in refused:
        answer = signing.hook(BODY, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), (headers, answer.text)
        assert "sign" in answer.json()["detail"]
    firings = signing.firings()
    assert len(firings) == len(refused) and signing.jobs() == []
    assert {(each["outcome"], each["payload"], each["payload_bytes"]) for each in firings} == {
        ("refused", None, len(BODY))
    }


def test_a_rotated_signing_secret_is_good_no_more_and_its_successor_is(signing: Fixed) -> None:
    new = signing.api.post(f"{signing.path}/rotate", json={"secrets": ["signing"]}).json()
    assert new["url"] is None and new["signing_secret"] != signing.issued["signing_secret"]
    assert signing.hook(BODY, headers=signed(signing.issued["signing_secret"], BODY)).status_code == 401
    assert signing.hook(BODY, headers=signed(new["signing_secret"], BODY)).status_code == 201


def test_no_secret_lies_in_the_database_in_the_clear(
    member_api: TestClient, trigger_body: dict[str, Any], sessions: sessionmaker[Session]
) -> None:
    issued = make_trigger(member_api, trigger_body, signing=True, hub={"repository": REPOSITORY}).issued
    secrets = [issued["url"].rpartition("/")[2], issued["signing_secret"], issued["hub_secret"]]
    assert all(len(secret) > 43 for secret in secrets)
    with transaction(sessions) as session:
        tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        held = "".join(str(session.execute(text(f'SELECT t::text FROM "{table}" t')).all()) for table in tables)
        sealed = session.execute(text("SELECT token_digest, signing_secret, hub_digest FROM triggers")).one()
    for secret in secrets:
        assert secret not in held and secret.encode().hex() not in held
        assert all(secret.encode() not in bytes(column) for column in sealed)


def hub_payload(**changes: Any) -> dict[str, Any]:
    """A new commit on the default branch, as the hub's webhooks of version 3 tell it."""
    payload: dict[str, Any] = {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {
            "type": "model",
            "name": REPOSITORY,
            "id": "621ffdc036468d709f17434d",
            "headSha": HEAD,
        },
        "updatedRefs": [{"ref": "refs/heads/main", "oldSha": "ce9a4674", "newSha": HEAD}],
        "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
    }
    for name, value in changes.items():
        if isinstance(value, dict):
            payload[name] = {**payload.get(name, {}), **value}
        else:
            payload[name] = value
    return payload


@pytest.fixture
def watching(member_api: TestClient, trigger_body: dict[str, Any]) -> Fixed:
    """A trigger that waits for commits of a repository."""
    placeholders = {"commit": {"path": "/repo/headSha"}, "sparsity": trigger_body["placeholders"]["sparsity"]}
    return make_trigger(member_api, trigger_body, placeholders=placeholders, hub={"repository": REPOSITORY})


def told(watching: Fixed, payload: Any, secret: str | None = None) -> Any:
    return watching.hook(payload, headers={"X-Webhook-Secret": secret or watching.issued["hub_secret"]})


def test_a_commit_on_the_default_branch_makes_one_job_however_often_it_is_told(watching: Fixed) -> None:
    first, again = told(watching, hub_payload()), told(watching, hub_payload())
    assert (first.status_code, again.status_code) == (201, 200), first.text
    assert first.json()["source"] == "hub" and first.json()["event_id"] == f"model:{REPOSITORY}@{HEAD}"
    assert again.json()["job_id"] == first.json()["job_id"]
    other = "f" * 40
    moved = hub_payload(repo={"headSha": other}, updatedRefs=[{"ref": "refs/heads/main", "newSha": other}])
    assert told(watching, moved).status_code == 201
    assert [job["metadata"]["commit"] for job in watching.jobs()] == [other, HEAD]


OTHERWISE: list[tuple[Any, str]] = [
    (hub_payload(repo={"name": "foresters/fir"}), "foresters/fir"),
    (hub_payload(repo={"type": "dataset"}), "dataset"),
    (hub_payload(updatedRefs=[{"ref": "refs/heads/dev", "newSha": HEAD}]), "refs/heads/dev"),
    (hub_payload(updatedRefs=[{"ref": "refs/tags/main", "newSha": HEAD}]), "refs/tags/main"),
    (hub_payload(updatedRefs=[{"ref": "refs/heads/main", "oldSha": HEAD, "newSha": None}]), "refs/heads/main"),
    (hub_payload(updatedRefs=None), "no branch"),
    (hub_payload(event={"action": "create", "scope": "discussion"}, discussion={"num": 1}), "discussion"),
    (hub_payload(event={"scope": "repo.contents"}), "repo.contents"),
    (hub_payload(event={"action": "delete", "scope": "repo"}), "delete"),
    ({"hello": "hub"}, "not an event of the hub"),
]


def test_all_else_that_the_hub_tells_is_ignored_and_says_why(watching: Fixed) -> None:
    for payload, says in OTHERWISE:
        answer = told(watching, payload)
        assert (answer.status_code, answer.json()["outcome"]) == (200, "ignored"), answer.text
        assert says in answer.json()["note"] and answer.json()["job_id"] is None
        assert watching.firings()[0] == answer.json()
    assert watching.jobs() == []


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.sampled_from(["update", "repo.content"])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["event", "repo", "scope", "action", "updatedRefs", "ref", "name"]), inner),
        ),
    )
)
def test_no_payload_breaks_the_reading_of_the_hubs_events(payload: Any) -> None:
    event = read_hub_event(HubSource(repository=REPOSITORY), payload)
    assert event.ignored is not None and event.event_id is None
    for changed in ({"updatedRefs": payload}, {"event": payload}, {"repo": payload}):
        event = read_hub_event(HubSource(repository=REPOSITORY), hub_payload() | changed)
        assert (event.ignored is None) is (event.event_id is not None)


def test_the_hubs_secret_is_required(watching: Fixed) -> None:
    for headers in ({}, {"X-Webhook-Secret": "wrong"}, {"X-Webhook-Secret": ""}):
        for payload in (hub_payload(), PAYLOAD | {"repo": {"headSha": HEAD}}):
            answer = watching.hook(payload, headers=headers)
            assert (answer.status_code, answer.json()["param"]) == (401, "X-Webhook-Secret"), answer.text
    assert watching.jobs() == [] and {each["payload"] for each in watching.firings()} == {None}


def test_a_trigger_with_both_takes_either_proof(member_api: TestClient, trigger_body: dict[str, Any]) -> None:
    placeholders = {**trigger_body["placeholders"], "commit": {"path": "/repo/headSha"}}
    both = make_trigger(
        member_api, trigger_body, placeholders=placeholders, hub={"repository": REPOSITORY}, signing=True
    )
    assert told(both, hub_payload()).json()["source"] == "hub"
    body = json.dumps({"repo": {"headSha": "0123abc"}}).encode()
    answer = both.hook(body, headers=signed(both.issued["signing_secret"], body))
    assert (answer.status_code, answer.json()["source"]) == (201, "url")
    for headers in ({}, {"X-Webhook-Secret": both.issued["signing_secret"]}):
        assert both.hook(body, headers=headers).status_code == 401
