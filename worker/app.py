"""The Celery app of the processes that consume: `celery --app worker.app …`.

Nothing here, or imported from here, loads torch: a pool process is forked from its parent, and CUDA must not be touched
before a fork. Only the runner, started afresh, does.
"""

import gc

from celery import Celery
from celery.signals import celeryd_init, setup_logging

from core.logs import configure_logs
from core.service.jobs.broker import celery_app
from core.settings import get_settings

gc.disable()  # what the tasks import stays, and looking through it again and again would be a third of the start


def _configure(app: Celery) -> Celery:
    app.conf.update(
        imports=("worker.tasks",),
        worker_enable_remote_control=False,  # needs a broadcast queue, and nobody uses it
        worker_send_task_events=False,
        worker_pool_putlocks=False,  # the consumer goes on while a job runs: it takes one hint ahead at most
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the queue of record decides, not the broker
    )
    return app


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: object) -> None:
    configure_logs(get_settings())


def _collect(**_: object) -> None:
    """Collect garbage from here on, but not in what is loaded, which the pool's process shares with its parent."""
    gc.freeze()
    gc.enable()


celeryd_init.connect(_collect)  # sent once the tasks are imported
app = _configure(celery_app(get_settings()))
