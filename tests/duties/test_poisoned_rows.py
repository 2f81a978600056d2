"""A row that no duty can do: the others are done all the same, and it ends parked with its reason."""

import json
from ipaddress import ip_network
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.service.duties.isolation import MOST_FAILURES
from core.settings import Settings
from core.storage import Store
from tests.duties.conftest import Dispatcher
from tests.jobs.conftest import NewJob
from tests.sweeps.conftest import Sweeps
from tests.triggers.conftest import make_trigger
from tests.webhooks.conftest import Webhooks
from tests.webhooks.receiver import receiving

Sessions = sessionmaker[Session]
_LOOPBACK: dict[str, Any] = {
    "webhook_allowed_networks": [ip_network("127.0.0.0/8")],
    "webhook_retry_delays": [0.0] * 9,
    "webhook_timeout_seconds": 60.0,
}


def test_triggers(
    member_api: TestClient, trigger_body: dict[str, Any], dispatcher: Dispatcher, sessions: Sessions
) -> None:
    placeholders = {**trigger_body["placeholders"], "commit": {"path": "/scheduled_at"}}
    schedule = {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}
    body = trigger_body | {"placeholders": placeholders, "schedule": schedule}
    good, bad, other = (make_trigger(member_api, body, name=name) for name in ("good", "bad", "other"))
    dispatcher.execute("UPDATE triggers SET next_fire_at = now() - interval '1 second'")
    dispatcher.execute("UPDATE triggers SET next_fire_at = now() - interval '9 second' WHERE name = 'bad'")
    dispatcher.refuse_writes("trigger_firings", "INSERT", f"NEW.trigger_id = '{bad.issued['id']}'")
    assert dispatcher.run("triggers") == 2
    assert good.firings()[0]["outcome"] == other.firings()[0]["outcome"] == "accepted"
    assert dispatcher.run("triggers") is None and dispatcher.failures() == {bad.issued["id"]: 1}, "it is left alone"
    dispatcher.run_until_parked("triggers")
    shown = member_api.get(bad.path).json()
    assert not shown["enabled"] and "5 times in a row: an unexpected error" in shown["disabled_reason"]
    assert dispatcher.failures() == {} and dispatcher.totals("triggers") == (MOST_FAILURES, 1)
    samples = member_api.get("/metrics").text
    assert 'secateur_dispatcher_row_failures_total{duty="triggers"} 5.0' in samples
    assert 'secateur_dispatcher_rows_parked_total{duty="triggers"} 1.0' in samples


def test_sweeps(
    sessions: Sessions, settings: Settings, store: Store, team: str, job_body: dict[str, Any], dispatcher: Dispatcher
) -> None:
    sweeps = Sweeps(sessions, settings, store, team)
    points = {"job": job_body | {"sparsity": 0.5}, "grid": {"sparsity": [0.3]}}
    bad, good = sweeps.submit(points), sweeps.submit(points)
    dispatcher.execute("UPDATE sweeps SET request = '{\"job\": 1}' WHERE id = :id", id=bad)
    assert dispatcher.run("sweeps") == 1
    assert sweeps.get(good).points.queued == 1 and set(dispatcher.failures()) == {bad}
    dispatcher.run_until_parked("sweeps")
    [(status, error)] = dispatcher.execute("SELECT status, error FROM sweeps WHERE id = :id", id=bad)
    assert status == "failed" and "unexpected error" in error["message"] and dispatcher.failures() == {}


def test_webhooks(sessions: Sessions, settings: Settings, team: str, dispatcher: Dispatcher) -> None:
    webhooks = Webhooks(sessions, settings.model_copy(update=_LOOPBACK), team)
    with receiving() as receiver:
        webhook = webhooks.add(receiver.url())
        for subject in ("bad", "good", "bad"):
            webhooks.tell(subject)
        bad, good, behind = (each.id for each in webhooks.deliveries(webhook.id))
        dispatcher.refuse_writes("webhook_attempts", "INSERT", f"NEW.delivery_id = '{bad}'")
        for _ in range(MOST_FAILURES):
            webhooks.dispatch()
            dispatcher.execute("UPDATE webhook_deliveries SET lease_expires_at = NULL")
        webhooks.dispatch()
    states = {each.id: each.state for each in webhooks.deliveries(webhook.id)}
    assert states == {bad: "failed", good: "delivered", behind: "delivered"}
    assert "5 times in a row" in str(webhooks.deliveries(webhook.id)[0].last_error)


def test_leases(dispatcher: Dispatcher, new_job: NewJob, sessions: Sessions, team: str) -> None:
    bad, good = new_job(), new_job()
    dispatcher.execute("UPDATE jobs SET status = 'running', attempt = 1, lease_expires_at = now(), worker_id = 'w'")
    dispatcher.execute("UPDATE teams SET running = 2")
    dispatcher.refuse_writes("jobs", "UPDATE", f"OLD.id = '{bad}'")
    dispatcher.run("leases")
    assert dispatcher.execute("SELECT status FROM jobs WHERE id = :id", id=good) == [("queued",)]
    dispatcher.run_until_parked("leases")
    assert dispatcher.totals("leases") == (MOST_FAILURES, 1)
    [(hours,)] = dispatcher.execute("SELECT extract(epoch FROM retry_at - now()) / 3600 FROM row_failures")
    assert 23 < hours <= 24, "nobody can end it: it is tried again after a day"


def test_reasons_that_pass_park_nothing(
    sessions: Sessions, settings: Settings, dispatcher: Dispatcher, new_job: NewJob, job_body: dict[str, Any]
) -> None:
    job = new_job()
    _await_discovery(dispatcher, job_body)
    dispatcher.refuse_writes("jobs", "UPDATE", "true", state="55P03")
    dispatcher.run("discovered models")
    dispatcher.run_until_parked("discovered models")
    dispatcher.run_until_parked("discovered models")
    assert dispatcher.failures() == {job: 0} and dispatcher.totals("discovered models") == (0, 0)
    dispatcher.accept_writes()
    dispatcher.execute("UPDATE row_failures SET retry_at = now()")
    assert dispatcher.run("discovered models") == 1 and dispatcher.failures() == {}


def _await_discovery(dispatcher: Dispatcher, body: dict[str, Any]) -> None:
    """Have all jobs wait for a discovery that is over."""
    dispatcher.execute(
        "UPDATE jobs SET awaits_discovery = 'disc_', dispatched_at = NULL, body = CAST(:body AS jsonb)",
        body=json.dumps(body),
    )
