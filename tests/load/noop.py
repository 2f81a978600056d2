"""A method that does nothing, known only where this module is loaded: by the API and the workers of the load run.

`uvicorn --factory tests.load.noop:create_app`; `celery --app tests.load.noop_worker worker …`. LOAD_FOLDER in the
environment holds what the runs share: `runs.log`, and `kill-api`, which makes an API process kill itself between the
commit of its next job and the job's hint.
"""

import os
import signal
from pathlib import Path

from celery import Celery
from fastapi import FastAPI

import api.app
import api.state
from core.catalogue.method_info import MethodInfo, Needs
from core.catalogue.methods import METHODS
from core.catalogue.parameters import RandomParameters
from core.jobs.hints import SendHint, hint_sender

NOOP = MethodInfo(
    id="noop",
    title="Nothing",
    summary="Does nothing.",
    description="Does nothing, for tests of what is around it.",
    gains="None.",
    paper=None,
    task_families=("language-model",),
    patterns=("unstructured",),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=RandomParameters,
)
METHODS[NOOP.id] = NOOP

FOLDER = Path(os.environ["LOAD_FOLDER"])


def create_app() -> FastAPI:
    api.state.hint_sender = _killing_hint_sender
    return api.app.create_app()


def _killing_hint_sender(app: Celery) -> SendHint:
    send = hint_sender(app)

    def send_or_die(job_id: str, queue: str) -> None:
        try:
            (FOLDER / "kill-api").unlink()
        except FileNotFoundError:
            send(job_id, queue)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    return send_or_die
