"""What is told, to whom, and in whose transaction."""

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs import queue
from core.service.webhooks import delivery_log
from core.service.webhooks.tables import WebhookDeliveryRow, WebhookEventRow
from tests.jobs.conftest import NewJob
from tests.webhooks.conftest import Count, Webhooks

URL = "https://127.0.0.1:9/hook"
ERROR = {"code": "bad", "message": "as told", "param": None, "retryable": False}


def test_each_state_of_a_job_is_told_as_it_was(
    webhooks: Webhooks, new_job: NewJob, sessions: sessionmaker[Session]
) -> None:
    webhook = webhooks.add(URL)
    job_id = new_job()
    with transaction(sessions) as session:
        assert queue.claim(session, queue="default", worker_id="w", lease_seconds=60) is not None
    with transaction(sessions) as session:
        queue.set_stage(session, job_id, 1, "prune")
        queue.finish_failed(session, job_id, 1, ERROR, metrics={"loss": 1.5})
    with transaction(sessions) as session:
        queue.request_retry(session, job_id, 3)
    with transaction(sessions) as session:
        queue.claim(session, queue="default", worker_id="w", lease_seconds=60)
        queue.request_cancel(session, job_id)
        queue.finish_cancelled(session, job_id, 2)
    told = webhooks.deliveries(webhook.id)
    states = ["queued", "running", "failed", "queued", "running", "cancelling", "cancelled"]
    assert [each.type for each in told] == [f"job.{state}" for state in states]
    assert {each.subject for each in told} == {job_id}
    with transaction(sessions) as session:
        payloads = [delivery_log.get_delivery(session, webhooks.team, webhook.id, each.id).payload for each in told]
    assert [each["data"]["status"] for each in payloads] == states
    numbers = [each["data"]["sequence"] for each in payloads]
    assert numbers == sorted(set(numbers)) and numbers[0] == 1
    failed = payloads[2]
    assert failed["type"] == "job.failed" and failed["timestamp"].endswith("Z")
    said = {"id": job_id, "stage": "prune", "attempt": 1, "error": ERROR, "metrics": {"loss": 1.5}, "sequence": 4}
    assert said.items() <= failed["data"].items()


def test_what_is_rolled_back_was_never_told(
    webhooks: Webhooks, new_job: NewJob, sessions: sessionmaker[Session], count: Count
) -> None:
    webhooks.add(URL)
    job_id = new_job()
    assert (count(WebhookEventRow), count(WebhookDeliveryRow)) == (1, 1)
    with sessions() as session, session.begin() as begun:
        queue.request_cancel(session, job_id)
        assert len(session.scalars(select(WebhookDeliveryRow)).all()) == 2
        begun.rollback()
    assert (count(WebhookEventRow), count(WebhookDeliveryRow)) == (1, 1)


def test_filters_are_by_type_and_by_metadata_and_one_event_serves_all(webhooks: Webhooks, count: Count) -> None:
    everything = webhooks.add(URL)
    failures = webhooks.add(URL, types=["job.failed", "sweep.failed"])
    main = webhooks.add(URL, metadata={"branch": "main", "kind": "nightly"})
    webhooks.tell(type="job.failed", metadata={"branch": "main", "kind": "nightly", "more": "x"})
    webhooks.tell(type="job.failed", metadata={"branch": "main"})
    webhooks.tell(type="sweep.failed")
    webhooks.tell(type="job.succeeded", metadata={"branch": "other", "kind": "nightly"})
    types = {each.id: [told.type for told in webhooks.deliveries(each.id)] for each in (everything, failures, main)}
    assert types == {
        everything.id: ["job.failed", "job.failed", "sweep.failed", "job.succeeded"],
        failures.id: ["job.failed", "job.failed", "sweep.failed"],
        main.id: ["job.failed"],
    }
    assert count(WebhookEventRow) == 4
