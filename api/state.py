"""What an API process holds, built once from the settings and shared by all requests."""

from dataclasses import dataclass

from celery import Celery
from sqlalchemy.orm import Session, sessionmaker

from api.watch import EventWatch
from core.artifacts.store import LocalStore
from core.database import session_factory
from core.jobs.broker import celery_app
from core.jobs.hints import SendHint, hint_sender
from core.settings import Settings
from core.teams.secret import server_secret


@dataclass(frozen=True)
class ApiState:
    """`send_hint` tells workers of a new job, `watch` wakes those who follow a job's events."""

    settings: Settings
    secret: bytes
    sessions: sessionmaker[Session]
    store: LocalStore
    broker: Celery
    send_hint: SendHint
    watch: EventWatch


def build_state(settings: Settings) -> ApiState:
    broker = celery_app(settings)
    return ApiState(
        settings=settings,
        secret=server_secret(settings),
        sessions=session_factory(settings),
        store=LocalStore(settings.store_root),
        broker=broker,
        send_hint=hint_sender(broker, settings.hint_stale_seconds),
        watch=EventWatch(settings),
    )
