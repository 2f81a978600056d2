"""The product's Celery app, whose runner does nothing but say so: `celery --app tests.load.noop_worker worker …`."""

import sys
from pathlib import Path

import worker.tasks
from tests.load.noop import FOLDER
from worker.app import app

__all__ = ["app"]

worker.tasks.RUNNER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("noop_runner.py")), str(FOLDER))
