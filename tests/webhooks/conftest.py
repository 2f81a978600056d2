"""Endpoints of a team, a receiver, and dispatchers to deliver."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, transaction
from core.http.address_policy import AddressPolicy
from core.service.teams.server_secret import server_secret
from core.service.webhooks import delivery_log, service
from core.service.webhooks.delivery_loop import Dispatch
from core.service.webhooks.events import WebhookEvent, emit
from core.service.webhooks.schemas import WebhookBody
from core.settings import Settings
from secateur_wire.webhooks import CreatedWebhook, Delivery, DeliveryDetail, Webhook, WebhookType
from tests.jobs.conftest import new_job
from tests.webhooks.receiver import Receiver, receiving

__all__ = ["new_job"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "webhook_allowed_networks": [ip_network("127.0.0.0/8")],
            "webhook_retry_delays": [0.0] * 3,
            "webhook_timeout_seconds": 60.0,
        }
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@dataclass
class Webhooks:
    """A team's webhooks, as tests use them."""

    sessions: sessionmaker[Session]
    settings: Settings
    team: str

    def add(self, url: str, team: str | None = None, **body: Any) -> CreatedWebhook:
        with transaction(self.sessions) as session:
            return service.create_webhook(
                session,
                team or self.team,
                WebhookBody.model_validate({"url": url, **body}),
                secret=server_secret(self.settings),
            )

    def get(self, webhook_id: str) -> Webhook:
        with transaction(self.sessions) as session:
            return service.get_webhook(session, self.team, webhook_id)

    def tell(self, subject: str | None = None, type: WebhookType = "job.failed", **data: Any) -> str:
        """An event, of a subject of its own unless told otherwise."""
        subject = subject or new_id("job")
        with transaction(self.sessions) as session:
            emit(session, WebhookEvent(self.team, type, {"id": subject, **data}, subject))
        return subject

    def deliveries(self, webhook_id: str, **filters: Any) -> list[Delivery]:
        """Oldest first."""
        with transaction(self.sessions) as session:
            page = delivery_log.list_deliveries(session, self.team, webhook_id, limit=200, after=None, **filters)
        return page.data[::-1]

    def delivery(self, webhook_id: str) -> DeliveryDetail:
        """The only one."""
        [only] = self.deliveries(webhook_id)
        with transaction(self.sessions) as session:
            return delivery_log.get_delivery(session, self.team, webhook_id, only.id)

    def dispatch(self, address_policy: AddressPolicy | None = None, **changed: Any) -> int:
        """One run of a dispatcher, until nothing is due; how many attempts were made."""
        settings = self.settings.model_copy(update=changed)
        address_policy = address_policy or AddressPolicy(tuple(settings.webhook_allowed_networks))
        return Dispatch(self.sessions, settings, address_policy).run(idle_looks=0)

    @contextmanager
    def dispatching(self, **changed: Any) -> Iterator[None]:
        """A run in a thread of its own; at the end it is waited for."""
        thread = threading.Thread(target=self.dispatch, kwargs=changed)
        thread.start()
        try:
            yield
        finally:
            thread.join(60)
            assert not thread.is_alive()

    def move_back(self, table: str, column: str, days: float) -> None:
        with transaction(self.sessions) as session:
            session.execute(text(f"UPDATE {table} SET {column} = {column} - make_interval(secs => {days * 86400})"))

    def audited(self, action: str) -> list[Any]:
        with transaction(self.sessions) as session:
            return list(session.execute(text("SELECT * FROM audit WHERE action = :action"), {"action": action}))


@pytest.fixture
def webhooks(sessions: sessionmaker[Session], settings: Settings, team: str) -> Webhooks:
    return Webhooks(sessions, settings, team)


Count = Callable[[type], int]


@pytest.fixture
def count(sessions: sessionmaker[Session]) -> Count:
    """Rows of a table."""

    def rows(table: type) -> int:
        with transaction(sessions) as session:
            return len(session.scalars(select(table)).all())

    return rows
