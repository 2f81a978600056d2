"""The product's Celery app, whose runner is the stand-in: `celery --app tests.worker.stand_in_worker worker …`.

STAND_IN in the environment holds the stand-in's BEHAVIOUR.
"""

import os
import sys

import worker.tasks
from worker.app import app

__all__ = ["app"]

worker.tasks.RUNNER = (sys.executable, "-m", "tests.worker.stand_in_runner", os.environ.get("STAND_IN", "{}"))
