"""Celery app of the processes that consume: `celery --app worker.app …`.

Nothing here, or imported from here, loads torch: a pool process is forked from its parent, and CUDA must not be used
before a fork. Only the runner loads it, in a new process.
"""

from celery import Celery
from celery.signals import setup_logging

from core.logs import configure_logs
from core.service.jobs.broker import celery_app
from core.settings import get_settings


def _configure(app: Celery) -> Celery:
    app.conf.update(
        imports=("worker.tasks",),
        worker_enable_remote_control=False,  # it needs a broadcast queue, and nobody uses it
        worker_send_task_events=False,
        worker_pool_putlocks=False,  # the consumer continues while a job runs, and takes at most one hint ahead
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the queue of record decides, not the broker
    )
    return app


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: object) -> None:
    configure_logs(get_settings())


app = _configure(celery_app(get_settings()))
