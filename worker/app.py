"""The Celery app of the processes that consume: `celery --app worker.app …`.

Nothing here, or imported from here, loads torch: a pool process is forked from its parent, and CUDA must not be touched
before a fork. Only the runner, started afresh, does.
"""

from celery import Celery
from celery.signals import setup_logging

from core.jobs.broker import celery_app
from core.logs import configure_logs
from core.settings import get_settings


def _configure(app: Celery) -> Celery:
    interval = get_settings().dispatch_interval_seconds
    app.conf.update(
        imports=("worker.tasks", "worker.dispatcher"),
        worker_enable_remote_control=False,  # needs a broadcast queue, and nobody uses it
        worker_send_task_events=False,
        worker_proc_alive_timeout=60,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the queue of record decides, not the broker
        beat_scheduler="celery.beat:Scheduler",  # keeps nothing on disk: every entry is due every few seconds
        beat_max_loop_interval=max(interval, 0.1),
        beat_schedule={
            "dispatch": {
                "task": "secateur.dispatch",
                "schedule": interval,
                "options": {"queue": "control", "expires": max(10 * interval, 10)},
            }
        },
    )
    return app


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: object) -> None:
    configure_logs(get_settings())


app = _configure(celery_app(get_settings()))
