"""Requests for the samples."""

from typing import Any, Final

from api.openapi.examples.common import JOB, LATER, MOMENT

_REQUEST: Final = {
    "id": "sample_01JNB2V6H7Q8R9S0T1V2W3X4Y7",
    "object": "sample_request",
    "state": "ready",
    "goal": "speed",
    "step": "Planning the first job…",
    "job_id": JOB,
    "error": None,
    "created_at": MOMENT,
    "started_at": MOMENT,
    "finished_at": LATER,
}
EXAMPLES: Final[dict[str, Any]] = {"SampleRequest": _REQUEST, "SampleBody": {"goal": "speed"}}
PARAMETERS: Final[dict[str, Any]] = {"request_id": _REQUEST["id"]}
