"""Celery app that carries hints. The API only sends messages; the worker registers the task on the same app."""

from urllib.parse import quote, urlsplit

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from core.keepalives import redis_keepalives
from core.service.jobs import folder_broker
from core.settings import Settings

PRUNE_TASK = "secateur.prune"
for _scheme in ("redis", "rediss"):
    TRANSPORT_ALIASES[_scheme] = "core.service.jobs.redis_broker:RedisTransport"


def celery_app(settings: Settings) -> Celery:
    """Return the Celery app for the configured broker: Redis, or folders in home.

    Messages are hints: results are ignored, no send is retried during a request, and a worker takes one message at a
    time.
    """
    app = Celery("secateur", set_as_current=False)
    app.conf.update(
        broker_url=broker_url(settings) or f"{folder_broker.SCHEME}://home",
        broker_connection_timeout=2,
        broker_connection_retry_on_startup=True,
        # A worker does not give up: it finds jobs in the database without the broker.
        broker_connection_max_retries=None,
        task_default_queue=settings.worker_queue,
        task_create_missing_queues=True,
        task_ignore_result=True,
        task_publish_retry=False,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        accept_content=["json"],
        task_serializer="json",
        enable_utc=True,
        timezone="UTC",
    )
    if settings.broker_url is None:
        folder = settings.home.resolve() / "broker"
        messages, control = folder / "messages", folder / "control"
        for each in (messages, control):
            each.mkdir(parents=True, exist_ok=True)
        app.conf.broker_transport_options = {
            "data_folder_in": str(messages),
            "data_folder_out": str(messages),
            "control_folder": str(control),
            "store_processed": False,
            "polling_interval": 0.2,
        }
    elif settings.broker_url.startswith("redis"):
        app.conf.broker_transport_options = {
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            **redis_keepalives(settings),
        }
        app.conf.worker_disable_prefetch = True
    return app


def broker_url(settings: Settings) -> str | None:
    """Return the broker's URL with the separately configured password; None where no URL is configured."""
    url, password = settings.broker_url, settings.broker_password
    if url is None or password is None:
        return url
    parts = urlsplit(url)
    user_of, _, host = parts.netloc.rpartition("@")
    user = user_of.partition(":")[0]
    return parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{host}").geturl()


def broker_answers(app: Celery) -> bool:
    """Return whether the broker can be reached now."""
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
    except Exception:  # Each transport raises errors of its own.
        return False
    return True
