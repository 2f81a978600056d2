"""Every call of the OpenAPI document, made by every kind of caller with the ids of one team."""

import hashlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, select, update
from sqlalchemy.orm import Session, sessionmaker

from api.app import create_app
from api.authorization import ALLOWED, CALLERS, OWN, expected
from api.openapi.document import operations
from core.database import transaction
from core.service.discoveries.versions import note_version
from core.service.teams.tables import ApiKeyRow, AuditRow
from core.settings import Settings
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.conftest import bearer
from tests.model_folders import write_alien, write_llama, write_text

Sessions = sessionmaker[Session]
Document = dict[str, Any]

TEXT = b"some text\n"
WORKLOADS = {
    "name": "nightly",
    "issuer": "https://ci.example.com",
    "claims": {"project_id": "1", "namespace_id": "2"},
}
HOOK = "https://127.0.0.1:9/hook"
PUBLISHED = {"to": "hub:acme/pruned", "token": "hf_somebodys"}
_ORDER = ("get", "put", "post", "patch", "delete")
"""What looks comes before what changes, and what deletes comes last."""
OTHERS = tuple(caller for caller in CALLERS if caller not in ("member", "admin"))
"""Callers who change nothing of the team."""


@dataclass(frozen=True)
class Garden:
    """One of each thing a call can name."""

    discovery: str
    sample: str
    job: str
    model: str
    dataset: str
    upload: str
    publication: str
    sweep: str
    spare_key: str
    rule: str
    webhook: str
    delivery: str
    trigger: str
    hook: str
    model_path: str
    dataset_path: str

    def but_absent(self) -> "Garden":
        """Ids of the same form, which nothing has."""
        changed = {name: getattr(self, name)[:-4] + "AAAA" for name in NAMED if name not in ("model", "dataset")}
        return replace(self, **changed, delivery=self.delivery[:-4] + "AAAA", model="ash", dataset="flakes")

    def named(self, path: str) -> dict[str, str]:
        """Values of the parameters in a path."""
        return {
            "discovery_id": self.discovery,
            "request_id": self.sample,
            "job_id": self.job,
            "name": self.dataset if "datasets" in path else self.model,
            "key_id": self.spare_key,
            "rule_id": self.rule,
            "upload_id": self.upload,
            "webhook_id": self.webhook,
            "delivery_id": self.delivery,
            "publication_id": self.publication,
            "trigger_id": self.trigger,
            "token": self.hook,
            "sweep_id": self.sweep,
            "path": "text.txt" if "uploads" in path else "model.safetensors",
        }

    def query(self, operation: str) -> Any:
        return {"compare_jobs": {"job": [self.job, self.job]}}.get(operation)

    def body(self, operation: str) -> Any:
        job = {"model": self.model, "method": "magnitude", "sparsity": 0.5}
        return {
            "submit_job": job,
            "submit_sweep": {"job": job, "grid": {"sparsity": [0.4, 0.5]}},
            "inspect_model": job,
            "make_plan": {"model": self.model, "goal": "sparsity"},
            "ask_for_samples": {},
            "register_model": {"name": "again", "path": self.model_path},
            "register_dataset": {"name": "again", "path": self.dataset_path},
            "create_key": {"name": "another"},
            "rotate_key": {"grace_seconds": 0},
            "create_workload_rule": WORKLOADS,
            "exchange_workload_token": {"token": "no token"},
            "create_webhook": {"url": HOOK},
            "change_webhook": {"description": "another"},
            "rotate_webhook_secret": {},
            "replay_failed": {"since": "2026-01-01T00:00:00Z"},
            "publish_job": PUBLISHED | {"to": "hub:acme/again"},
            "set_retention": {"keep_days": 30},
            "set_hub_token": {"token": "hf_another"},
            "preview_retention": {"keep_days": 30},
            "create_trigger": {"name": "another", "template": job},
            "update_trigger": {"description": "changed"},
            "rotate_trigger": {"secrets": ["signing"]},  # it has none: the URL stays as it is
            "fire_trigger": {},  # it lacks what the template needs
            "fire_hook": {},
            "preview_trigger": {},
            "start_upload": {"kind": "dataset", "name": "later", "files": _announced(b"other text\n")},
        }.get(operation)


NAMED = [field.name for field in fields(Garden) if field.name not in ("delivery", "hook", "model_path", "dataset_path")]
"""Fields of a garden that no other team may see."""


def _announced(text: bytes) -> list[dict[str, Any]]:
    return [{"path": "text.txt", "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Webhooks may be sent to this machine: no name is asked for. Nobody is told to slow down."""
    return settings.model_copy(
        update={
            "webhook_allowed_networks": [ip_network("127.0.0.0/8")],
            "requests_per_minute": 0,
            "workload_issuers": [WORKLOADS["issuer"]],
        }
    )


@pytest.fixture
def garden(api: TestClient, settings: Settings, sessions: Sessions, store: Store, tmp_path: Path) -> Garden:
    """Everything one team can have, its job ended with an artifact."""
    folder = write_llama(settings.models_root / "oak").resolve()
    text = write_text(settings.datasets_root / "leaves.txt").resolve()
    for noun, name, path in (("models", "oak", folder), ("datasets", "leaves", text)):
        api.post(f"/v1/{noun}", json={"name": name, "path": str(path)}).raise_for_status()
    upload = {"kind": "dataset", "name": "sent", "files": _announced(TEXT)}
    webhook = api.post("/v1/webhooks", json={"url": HOOK}).raise_for_status().json()["id"]
    job = succeeded_job(api, sessions, store, tmp_path / "artifact", model="oak")
    trigger = {
        "name": "commits",
        "template": {"model": "oak", "method": "magnitude", "sparsity": {"$payload": "sparsity"}},
        "placeholders": {"sparsity": {"path": "/sparsity", "type": "number"}},
    }
    fixed = api.post("/v1/triggers", json=trigger).raise_for_status().json()
    sweep = {"job": {"model": "oak", "method": "magnitude"}, "grid": {"sparsity": [0.4, 0.5]}}
    cancelled = api.post("/v1/sweeps", json=sweep).raise_for_status().json()["id"]
    api.post(f"/v1/sweeps/{cancelled}/cancel").raise_for_status()
    with transaction(sessions) as session:
        note_version(session, "default", "5.24.0")
    unknown = {"name": "alien", "path": str(write_alien(settings.models_root / "alien").resolve())}
    api.post("/v1/models", json=unknown).raise_for_status()
    return Garden(
        sample=api.post("/v1/samples", json={}).raise_for_status().json()["id"],
        discovery=api.post("/v1/models/inspect", json={"model": "alien"}).raise_for_status().json()["id"],
        job=job,
        model="oak",
        dataset="leaves",
        upload=api.post("/v1/uploads", json=upload).raise_for_status().json()["id"],
        publication=api.post(f"/v1/jobs/{job}/publish", json=PUBLISHED).raise_for_status().json()["id"],
        sweep=cancelled,
        rule=api.post("/v1/workload-rules", json=WORKLOADS).raise_for_status().json()["id"],
        spare_key=api.post("/v1/keys", json={"name": "spare"}).raise_for_status().json()["id"],
        webhook=webhook,
        delivery=api.post(f"/v1/webhooks/{webhook}/ping").raise_for_status().json()["id"],
        trigger=fixed["id"],
        hook=fixed["url"].rpartition("/")[2],
        model_path=str(folder),
        dataset_path=str(text),
    )


@pytest.fixture
def keys(
    api: TestClient, sessions: Sessions, viewer_key: str, member_key: str, admin_key: str, other_team_key: str
) -> dict[str, str | None]:
    """The key of each caller."""
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    expired = api.post("/v1/keys", json={"name": "expired", "role": "admin", "expires_at": soon}).json()
    revoked = api.post("/v1/keys", json={"name": "revoked", "role": "admin"}).json()
    api.delete(f"/v1/keys/{revoked['id']}").raise_for_status()
    with transaction(sessions) as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == expired["id"]).values(expires_at=datetime.now(UTC)))
    found = [None, expired["key"], revoked["key"], viewer_key, member_key, admin_key, other_team_key]
    return dict(zip(CALLERS, found, strict=True))


@pytest.fixture(scope="module")
def document() -> Document:
    """No database is needed to describe the service."""
    return create_app(Settings(database_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing")).openapi()


def _ask(api: TestClient, key: str | None, method: str, path: str, operation: Document, garden: Garden) -> Any:
    name = operation["operationId"]
    headers = {} if key is None else bearer(key)
    arguments: dict[str, Any] = {"json": garden.body(name), "params": garden.query(name)}
    if name == "send_part":
        arguments = {"content": TEXT, "params": {"offset": 0}}
        headers["Content-Type"] = "application/octet-stream"
    elif "requestBody" in operation:
        assert arguments["json"] is not None, f"{name} takes a body: say which in Garden.body"
    api.headers.pop("Authorization", None)
    return api.request(method, path.format(**garden.named(path)), headers=headers, follow_redirects=False, **arguments)


def _calls(document: Document) -> list[tuple[str, str, Document]]:
    return sorted(operations(document), key=lambda call: _ORDER.index(call[0]))


def _everything(api: TestClient, key: str, garden: Garden) -> list[Any]:
    paths = (
        "jobs/{job}",
        "models/{model}",
        "datasets/{dataset}",
        "uploads/{upload}",
        "publications/{publication}",
        "webhooks/{webhook}",
        "webhooks/{webhook}/deliveries",
        "triggers/{trigger}",
        "sweeps/{sweep}",
        "jobs/{job}/artifacts",
        "team",
    )
    shown = [api.get(f"/v1/{path}".format(**vars(garden)), headers=bearer(key)).json() for path in paths]
    listed = api.get("/v1/keys", headers=bearer(key)).json()["data"]
    return [*shown, *({**each, "last_used_at": None} for each in listed)]


@pytest.mark.parametrize("callers", [OTHERS, ("member",), ("admin",)], ids=["others", "member", "admin"])
def test_every_call_is_answered_as_the_table_says(
    api: TestClient,
    document: Document,
    garden: Garden,
    keys: dict[str, str | None],
    admin_key: str,
    callers: tuple[str, ...],
) -> None:
    before = _everything(api, admin_key, garden)
    for caller in callers:
        _is_answered_as_the_table_says(api, document, garden, keys[caller], caller)
        if caller in OTHERS:
            assert _everything(api, admin_key, garden) == before, caller


def _is_answered_as_the_table_says(
    api: TestClient, document: Document, garden: Garden, key: str | None, caller: str
) -> None:
    outcomes: dict[str, tuple[str, str]] = {}
    for method, path, operation in _calls(document):
        told = expected(path, operation, caller, document["components"]["schemas"])
        response = _ask(api, key, method, path, operation, garden)
        status = response.status_code
        refused = status in (401, 403, 404)
        came = ALLOWED if told in (ALLOWED, OWN) and not refused and status < 500 else str(status)
        outcomes[f"{method} {path}"] = (came, ALLOWED if told == OWN else told)
        if status == 401:
            assert response.json()["code"] == "unauthenticated"
        if told == OWN and method == "get":
            hidden = [getattr(garden, name) for name in NAMED]
            assert not [each for each in hidden if f'"{each}"' in response.text], (path, response.text)
    wrong = {call: outcome for call, outcome in outcomes.items() if outcome[0] != outcome[1]}
    assert not wrong, f"(came, expected) of {caller}: {wrong}"


def test_what_is_another_teams_answers_exactly_as_what_does_not_exist(
    api: TestClient, document: Document, garden: Garden, other_team_key: str
) -> None:
    absent = garden.but_absent()
    compared = 0
    for method, path, operation in _calls(document):
        if expected(path, operation, "admin of another team", document["components"]["schemas"]) in (ALLOWED, OWN):
            continue
        answers = []
        for named in (garden, absent):
            response = _ask(api, other_team_key, method, path, operation, named)
            text = response.text
            for placeholder in (*NAMED, "delivery"):
                text = text.replace(getattr(named, placeholder), f"<{placeholder}>")
            headers = {name: value for name, value in response.headers.items() if name not in ("x-request-id", "date")}
            headers.pop("content-length")
            answers.append((response.status_code, text, headers))
        assert answers[0] == answers[1], (method, path)
        compared += 1
    assert compared > 15


AUDITED: dict[str, str] = {
    "abort_upload": "upload.abort",
    "cancel_publication": "publication.cancel",
    "change_webhook": "webhook.update",
    "clear_retention": "retention.set",
    "complete_upload": "dataset.register upload.complete",
    "create_key": "key.create",
    "create_trigger": "trigger.create",
    "create_webhook": "webhook.create",
    "create_workload_rule": "workload_rule.create",
    "delete_dataset": "dataset.delete",
    "delete_trigger": "trigger.delete",
    "delete_webhook": "webhook.delete",
    "delete_workload_rule": "workload_rule.delete",
    "ping_webhook": "webhook.ping",
    "publish_job": "publication.create",
    "register_dataset": "dataset.register",
    "register_model": "model.register",
    "remove_hub_token": "hub_token.remove",
    "replay_delivery": "webhook.replay",
    "replay_failed": "webhook.replay",
    "resume_sweep": "sweep.resume",
    "revoke_key": "key.revoke",
    "rotate_key": "key.rotate",
    "rotate_webhook_secret": "webhook.rotate",
    "set_hub_token": "hub_token.set",
    "set_retention": "retention.set",
    "start_upload": "upload.start",
    "submit_job": "job.submit",
    "submit_sweep": "sweep.submit",
    "update_trigger": "trigger.update",
}
"""What each call leaves in the team's trail; one that is not named, or refused, leaves nothing."""


def test_what_is_changed_is_in_the_trail_with_its_key_and_without_secrets(
    api: TestClient, document: Document, garden: Garden, admin_key: str, sessions: Sessions
) -> None:
    found: dict[str, str] = {}
    made: list[str] = [TEXT.decode(), "hf_another", "hf_somebodys", admin_key]
    for method, path, operation in _calls(document):
        with transaction(sessions) as session:
            before = set(session.scalars(select(AuditRow.id)))
        answer = _ask(api, admin_key, method, path, operation, garden)
        if answer.status_code in (200, 201) and answer.headers.get("content-type") == "application/json":
            secrets = {"key", "secret"} & answer.json().keys()
            made += [answer.json()[name] for name in secrets if answer.json()[name]]
        with transaction(sessions) as session:
            rows = session.scalars(select(AuditRow).where(AuditRow.id.not_in(before))).all()
            assert all(row.key_id and not [each for each in made if each in str(row.details)] for row in rows), path
            if rows:
                found[operation["operationId"]] = " ".join(sorted(row.action for row in rows))
    assert found == AUDITED


def test_what_is_ended_deleted_or_fired_is_in_the_trail(api: TestClient, garden: Garden) -> None:
    job = api.post("/v1/jobs", json=garden.body("submit_job")).json()["id"]
    sweep = api.post("/v1/sweeps", json=garden.body("submit_sweep")).json()["id"]
    api.post(f"/v1/publications/{garden.publication}/cancel").raise_for_status()
    for method, path, body, action in (
        ("post", f"jobs/{job}/cancel", None, "job.cancel"),
        ("post", f"jobs/{job}/retry", None, "job.retry"),
        ("post", f"sweeps/{sweep}/cancel", None, "sweep.cancel"),
        ("post", f"triggers/{garden.trigger}/fire", {"sparsity": 0.5}, "job.submit"),
        ("delete", f"jobs/{garden.job}/artifacts", None, "artifact.delete"),
        ("delete", "models/alien", None, "model.delete"),
    ):
        before = {entry["id"] for entry in api.get("/v1/audit", params={"limit": 200}).json()["data"]}
        api.request(method, f"/v1/{path}", json=body).raise_for_status()
        entries = api.get("/v1/audit", params={"limit": 200}).json()["data"]
        noted = [entry for entry in entries if entry["id"] not in before and entry["action"] == action]
        assert noted and noted[0]["actor"] != "nobody", path


def test_every_call_that_writes_can_be_made_often_on_one_connection(
    api: TestClient, document: Document, garden: Garden, admin_key: str
) -> None:
    """PostgreSQL plans a statement without its values once a connection has run it often enough."""
    faults = []
    for method, path, operation in _calls(document):
        if method != "get":
            answers = [_ask(api, admin_key, method, path, operation, garden) for _ in range(12)]
            faults += [
                (method, path, at, answer.text) for at, answer in enumerate(answers) if answer.status_code >= 500
            ]
    assert not faults


def test_no_call_waits_for_disk_or_network_while_its_transaction_is_open(
    api: TestClient, document: Document, garden: Garden, admin_key: str
) -> None:
    """PostgreSQL ends a transaction that stands still, and until then it holds what others wait for."""
    in_transaction, waited = threading.local(), []
    began: list[str] = []

    def look(event_name: str, arguments: tuple[Any, ...]) -> None:
        waits = event_name in ("socket.getaddrinfo", "socket.connect") or (
            event_name == "open" and str(arguments[0]).endswith((".safetensors", ".txt"))
        )
        if waits and getattr(in_transaction, "is_open", False):
            waited.append((began[-1], event_name, arguments))

    def note(is_open: bool) -> Callable[[object], None]:
        return lambda _: setattr(in_transaction, "is_open", is_open)

    sys.addaudithook(lambda *event: look(*event) if began else None)
    for name in ("begin", "commit", "rollback"):
        event.listen(Engine, name, note(name == "begin"))
    try:
        for method, path, operation in _calls(document):
            began.append(f"{method} {path}")
            api.headers["Idempotency-Key"] = began[-1]
            _ask(api, admin_key, method, path, operation, garden)
    finally:
        began.clear()
    assert waited == []
