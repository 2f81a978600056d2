"""Answers to requests that fire a trigger."""

from fastapi import BackgroundTasks
from starlette.responses import Response

from api.events.after_commit import hint_after_commit
from api.state import ApiState
from core.service.triggers.firing import Fired


def firing_response(fired: Fired, state: ApiState, background: BackgroundTasks) -> Response:
    """Answer 201 where a job was made (workers are told of it), 200 where none was, or one before."""
    if fired.job is not None:
        hint_after_commit(background, state, fired.job)
    headers = {"Idempotency-Replayed": "true"} if fired.firing.outcome == "duplicate" else {}
    status = 201 if fired.firing.outcome == "accepted" else 200
    return Response(fired.firing.model_dump_json(), status, headers, media_type="application/json")
