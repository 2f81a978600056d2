"""Entry point `python -m worker`: the worker of this container, or one for each device of `SECATEUR_DEVICES`.

A single worker replaces this process; several are its children. SIGTERM drains them.
"""

import os
import signal
import sys
import threading

from core.logs import configure_logs
from core.settings import get_settings
from worker import alive
from worker.node import run_workers, worker_command


def main() -> int:
    settings = get_settings()
    alive.forget(alive.WORKER, settings)  # remove the sign of life of an earlier container
    if not settings.devices:
        command = worker_command(settings)
        os.execv(command[0], command)
    configure_logs(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_workers(settings, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
