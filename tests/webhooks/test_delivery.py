"""That what is told arrives: signed, in order, and tried again where it does not; what becomes of who refuses it."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from core.database import transaction
from core.service.teams.sealing import SecretCipher
from core.service.teams.server_secret import server_secret
from core.service.webhooks import service
from core.service.webhooks.deliveries import DeliveryOutcome, candidates, lease, record, retry_delay
from core.service.webhooks.delivery_log import remove_old_deliveries
from core.service.webhooks.schemas import WebhookChanges
from core.service.webhooks.signing import PURPOSE
from core.service.webhooks.tables import WebhookAttemptRow, WebhookDeliveryRow, WebhookEventRow
from secateur_wire.errors import Conflict
from tests.webhooks.conftest import Count, Webhooks
from tests.webhooks.receiver import Received, Receiver
from tests.worker.conftest import eventually


def signatures(received: Received) -> list[str]:
    return received.headers["webhook-signature"].split(" ")


def tell_and_dispatch(webhooks: Webhooks) -> str:
    subject = webhooks.tell()
    webhooks.dispatch()
    return subject


def test_a_delivery_is_signed_and_logged(webhooks: Webhooks, receiver: Receiver) -> None:
    webhook = webhooks.add(receiver.url())
    subject = webhooks.tell()
    assert webhooks.dispatch() == 1
    [received] = receiver.received
    event = Verifier(webhook.secret).verify(received.body, received.headers)
    assert event["data"] == {"id": subject} and received.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook.secret).verify(received.body + b" ", received.headers)
    delivery = webhooks.delivery(webhook.id)
    assert delivery.state == "delivered" and delivery.id == received.headers["webhook-id"]
    assert delivery.payload == event and delivery.next_attempt_at is None and delivery.finished_at is not None
    [attempt] = delivery.log
    assert (attempt.status, attempt.error, attempt.response) == (200, None, "said�") and attempt.milliseconds >= 0
    assert webhooks.dispatch() == 0


def test_what_fails_is_tried_again_with_the_same_id_and_then_given_up_for_the_next(
    webhooks: Webhooks, receiver: Receiver
) -> None:
    webhook = webhooks.add(receiver.url("/status/500"))
    job = webhooks.tell()
    assert webhooks.dispatch() == 4, "the first, and one after each of three delays"
    assert len({(each.headers["webhook-id"], each.body) for each in receiver.received}) == 1
    delivery = webhooks.delivery(webhook.id)
    assert delivery.state == "failed" and delivery.attempts == 4 and delivery.last_error == "answered 500"
    assert [each.attempt for each in delivery.log] == [4, 3, 2, 1] and {each.status for each in delivery.log} == {500}
    assert webhooks.get(webhook.id).enabled and webhooks.get(webhook.id).failing_since is not None
    with transaction(webhooks.sessions) as session:
        changes = WebhookChanges(url=receiver.url())
        service.change_webhook(session, webhooks.team, webhook.id, changes)
    webhooks.tell(job)
    webhooks.dispatch()
    assert [each.state for each in webhooks.deliveries(webhook.id)] == ["failed", "delivered"]
    assert webhooks.get(webhook.id).failing_since is None, "a success ends the failures"


def test_delays_grow_vary_and_obey_a_receiver_who_asks_for_more() -> None:
    delays = [5.0, 300.0, 86400.0]
    drawn = [retry_delay(2, None, delays) for _ in range(50)]
    assert all(each is not None and 240 <= each <= 360 for each in drawn) and len(set(drawn)) > 10
    assert retry_delay(1, 1000, delays) == 1000
    assert retry_delay(2, 1, delays) != 1, "not for less"
    assert retry_delay(1, 10**9, delays) == 86400, "not for ever"
    assert retry_delay(4, None, delays) is None


def test_events_of_a_job_keep_their_order_whatever_fails(webhooks: Webhooks, receiver: Receiver) -> None:
    webhooks.add(receiver.url())
    receiver.answers = [500, 200, 503, 500, 200]
    job = webhooks.tell(type="job.queued")
    for type in ("job.running", "job.failed", "job.queued"):
        webhooks.tell(job, type=type)  # type: ignore[arg-type]
    webhooks.dispatch()
    came = [each.event["type"].removeprefix("job.") for each in receiver.received]
    assert came == ["queued", "queued", "running", "running", "running", "failed", "queued"]


def test_receivers_that_misbehave_delay_only_themselves(webhooks: Webhooks, receiver: Receiver) -> None:
    bad = {path: webhooks.add(receiver.url(path)) for path in ("/silent", "/drip", "/drip-body", "/endless")}
    bad["/garbage"] = webhooks.add(receiver.url("/garbage"))
    bad["/redirect"] = webhooks.add(receiver.url("/redirect"))
    good = webhooks.add(receiver.url())
    for _ in range(6):
        webhooks.tell()
    with webhooks.dispatching(webhook_connections=64, webhook_retry_delays=[3600.0]):
        eventually(lambda: len(receiver.of("/ok")) == 6)
        eventually(lambda: {each.state for each in webhooks.deliveries(good.id)} == {"delivered"})
        waiting = {path: {each.state for each in webhooks.deliveries(bad[path].id)} for path in ("/silent", "/drip")}
        assert waiting == {"/silent": {"pending"}, "/drip": {"pending"}}
        assert len(receiver.of("/silent")) <= 4, "as many as one endpoint may have on their way"
        receiver.go_on.set()
    assert receiver.of("/ok/redirected") == []
    errors = {path: {each.last_error for each in webhooks.deliveries(bad[path].id)} for path in bad}
    assert errors["/endless"] == {None} and all("redirects" in (each or "") for each in errors["/redirect"])
    assert all("not HTTP" in (each or "") for each in errors["/garbage"])


def test_a_receiver_that_is_gone_is_told_nothing_more_until_it_is_enabled(
    webhooks: Webhooks, receiver: Receiver
) -> None:
    webhook = webhooks.add(receiver.url())
    receiver.answers = [410]
    webhooks.tell()
    webhooks.tell("job_other")
    webhooks.dispatch(webhook_connections=1)
    shown = webhooks.get(webhook.id)
    assert not shown.enabled and shown.disabled_reason == "the receiver answered 410 Gone" and shown.pending >= 1
    [entry] = webhooks.audited("webhook.disable")
    assert entry.actor == "webhooks" and entry.object_id == webhook.id and "410" in entry.details["reason"]
    webhooks.tell()
    assert webhooks.dispatch() == 0
    with transaction(webhooks.sessions) as session:
        enabled = service.change_webhook(session, webhooks.team, webhook.id, WebhookChanges(enabled=True))
    assert enabled.enabled and enabled.disabled_reason is None and enabled.disabled_at is None
    webhooks.dispatch()
    assert {each.state for each in webhooks.deliveries(webhook.id)} == {"delivered"}


def test_an_endpoint_that_only_failed_for_days_is_disabled(webhooks: Webhooks, receiver: Receiver) -> None:
    webhook = webhooks.add(receiver.url("/status/500"))
    webhooks.tell()
    webhooks.dispatch()
    assert webhooks.get(webhook.id).enabled
    webhooks.move_back("webhooks", "failing_since", 5.1)
    webhooks.tell()
    webhooks.dispatch()
    shown = webhooks.get(webhook.id)
    assert not shown.enabled and shown.disabled_reason == "every delivery failed for 5 days: answered 500"
    assert len(webhooks.audited("webhook.disable")) == 1


def test_both_secrets_sign_while_the_old_one_is_good(webhooks: Webhooks, receiver: Receiver) -> None:
    webhook = webhooks.add(receiver.url())
    secret = server_secret(webhooks.settings)
    with transaction(webhooks.sessions) as session:
        new = service.rotate_secret(session, webhooks.team, webhook.id, grace_seconds=3600, secret=secret).secret
    assert new.startswith("whsec_") and new != webhook.secret
    webhooks.tell()
    webhooks.dispatch()
    [received] = receiver.received
    assert len(signatures(received)) == 2
    for each in (webhook.secret, new):
        Verifier(each).verify(received.body, received.headers)
    webhooks.move_back("webhook_secrets", "expires_at", 1)
    webhooks.tell()
    webhooks.dispatch()
    last = receiver.received[-1]
    assert len(signatures(last)) == 1
    Verifier(new).verify(last.body, last.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook.secret).verify(last.body, last.headers)


def test_secrets_are_stored_sealed_and_at_most_five_sign(webhooks: Webhooks, sessions: sessionmaker[Session]) -> None:
    webhook = webhooks.add("https://127.0.0.1:9/")
    secret = server_secret(webhooks.settings)
    with transaction(sessions) as session:
        [sealed] = session.scalars(text("SELECT sealed FROM webhook_secrets"))
    assert webhook.secret.encode() not in bytes(sealed) and SecretCipher(secret, PURPOSE).open(sealed) == webhook.secret
    with transaction(sessions) as session:
        for _ in range(4):
            service.rotate_secret(session, webhooks.team, webhook.id, grace_seconds=3600, secret=secret)
        with pytest.raises(Conflict, match="5 secrets"):
            service.rotate_secret(session, webhooks.team, webhook.id, grace_seconds=3600, secret=secret)
    with transaction(sessions) as session:  # without grace the old ones end at once
        for _ in range(6):
            service.rotate_secret(session, webhooks.team, webhook.id, grace_seconds=0, secret=secret)


def test_replays_send_again_with_the_same_id(webhooks: Webhooks, receiver: Receiver) -> None:
    webhook = webhooks.add(receiver.url())
    receiver.answers = [500] * 8
    old, new, fine = (tell_and_dispatch(webhooks) for _ in range(3))
    states = {each.subject: each for each in webhooks.deliveries(webhook.id)}
    assert [states[each].state for each in (old, new, fine)] == ["failed", "failed", "delivered"]
    with transaction(webhooks.sessions) as session:
        service.replay(session, webhooks.team, webhook.id, states[fine].id)
    webhooks.dispatch()
    ids = [each.headers["webhook-id"] for each in receiver.received if each.event["data"]["id"] == fine]
    assert len(ids) == 2 and len(set(ids)) == 1
    with transaction(webhooks.sessions) as session:
        session.execute(
            text("UPDATE webhook_deliveries SET created_at = created_at - interval '1 day' WHERE subject = :old"),
            {"old": old},
        )
        since = states[new].created_at
        assert service.replay_failed(session, webhooks.team, webhook.id, since) == 1
    webhooks.dispatch()
    assert {each.subject: each.state for each in webhooks.deliveries(webhook.id)} == {
        old: "failed",
        new: "delivered",
        fine: "delivered",
    }
    assert [entry.details.get("deliveries") for entry in webhooks.audited("webhook.replay")] == [None, 1]


@pytest.mark.parametrize("stale_fails", [True, False])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["stale first", "stale second"])
def test_an_attempt_that_lost_its_lease_changes_nothing(
    stale_fails: bool, order: tuple[int, int], webhooks: Webhooks
) -> None:
    webhook = webhooks.add("https://127.0.0.1:9/")
    webhooks.tell()
    seal = SecretCipher(server_secret(webhooks.settings), PURPOSE)
    with transaction(webhooks.sessions) as session:
        [first] = lease(session, candidates(session, most=9, full=(), full_teams=()), seconds=0, seal=seal)
    with transaction(webhooks.sessions) as session:
        [second] = lease(session, candidates(session, most=9, full=(), full_teams=()), seconds=60, seal=seal)
    with transaction(webhooks.sessions) as session:
        assert candidates(session, most=9, full=(), full_teams=()) == []
    assert (first.attempt, second.attempt) == (1, 2)
    failed = DeliveryOutcome(1, 500, "answered 500", None, None)
    outcomes = failed, replace(failed, status=200, error=None)
    attempts = list(zip((first, second), outcomes if stale_fails else outcomes[::-1], strict=True))
    for place in order:
        with transaction(webhooks.sessions) as session:
            record(session, *attempts[place], webhooks.settings)
    delivery = webhooks.delivery(webhook.id)
    assert [each.attempt for each in delivery.log] == [2, 1]
    current = ("delivered", 200, None) if stale_fails else ("pending", 500, "answered 500")
    assert (delivery.state, delivery.last_status, delivery.last_error) == current


def test_two_dispatchers_never_send_the_same(webhooks: Webhooks, receiver: Receiver) -> None:
    for _ in range(3):
        webhooks.add(receiver.url())
    jobs = [webhooks.tell(type="job.queued") for _ in range(10)]
    for job in jobs:
        webhooks.tell(job, type="job.running")
    with webhooks.dispatching(), webhooks.dispatching():
        eventually(lambda: len(receiver.received) >= 60)
    ids = [each.headers["webhook-id"] for each in receiver.received]
    assert len(ids) == len(set(ids)) == 60


def test_what_ended_long_ago_is_removed(webhooks: Webhooks, receiver: Receiver, count: Count) -> None:
    webhook = webhooks.add(receiver.url())
    webhooks.tell()
    webhooks.dispatch()
    for table, column in (("webhook_deliveries", "finished_at"), ("webhook_events", "created_at")):
        webhooks.move_back(table, column, 31)
    webhooks.tell()
    assert remove_old_deliveries(webhooks.sessions, webhooks.settings) == 1
    assert [count(table) for table in (WebhookDeliveryRow, WebhookEventRow, WebhookAttemptRow)] == [1, 1, 0]
    webhooks.move_back("webhook_deliveries", "created_at", 31)
    assert remove_old_deliveries(webhooks.sessions, webhooks.settings) is None, "it still waits"
    with transaction(webhooks.sessions) as session:
        service.change_webhook(session, webhooks.team, webhook.id, WebhookChanges(enabled=False))
    webhooks.move_back("webhooks", "disabled_at", 31)
    assert remove_old_deliveries(webhooks.sessions, webhooks.settings) == 1, "for nobody"


def test_those_behind_one_that_failed_wait_as_long_as_it_does(webhooks: Webhooks, receiver: Receiver) -> None:
    webhook = webhooks.add(receiver.url())
    receiver.answers = [500]
    job = webhooks.tell(type="job.queued")
    webhooks.tell(job, type="job.running")
    assert webhooks.dispatch(webhook_retry_delays=[3600.0]) == 1
    first, second = webhooks.deliveries(webhook.id)
    assert first.next_attempt_at and second.next_attempt_at and second.attempts == 0
    assert abs((first.next_attempt_at - second.next_attempt_at).total_seconds()) < 60
    with transaction(webhooks.sessions) as session:
        service.replay(session, webhooks.team, webhook.id, first.id)
    assert webhooks.dispatch() == 2, "once it is delivered, they follow"
