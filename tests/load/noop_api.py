"""The product's API, which knows the method that does nothing: `uvicorn --factory tests.load.noop_api:create_app`.

A file `kill-api` in LOAD_FOLDER makes a process of it kill itself between the commit of its next job and the hint.
"""

import os
import signal

from celery import Celery
from fastapi import FastAPI

import api.app
import api.state
from core.service.jobs.hints import SendHint, hint_sender
from tests.load.noop import FOLDER


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
