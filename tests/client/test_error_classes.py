"""Every error of the server has a class of the client."""

from collections.abc import Iterator

import httpx
import pytest

from core import errors as of_server
from secateur import Client, errors
from secateur.jobs import Job
from secateur.transport.problems import error_from
from tests.client.script import JOB_ID, Script, job, life

ENDS_OF_ATTEMPTS = (of_server.RunFailed,)
"""What a job ended with, never an answer to a request; but for those two which any request can meet."""
ANSWERED_TOO = (of_server.DiskFull, of_server.InternalError)
FAMILIES = (of_server.SecateurError, of_server.TooMany, *ENDS_OF_ATTEMPTS)
"""Never raised themselves: what they stand for has classes of its own."""


def tree(kind: type[of_server.SecateurError]) -> Iterator[type[of_server.SecateurError]]:
    for each in kind.__subclasses__():
        yield each
        yield from tree(each)


ALL = sorted(set(tree(of_server.SecateurError)), key=lambda kind: kind.code)
REFUSALS = [kind for kind in ALL if not issubclass(kind, ENDS_OF_ATTEMPTS) or issubclass(kind, ANSWERED_TOO)]
ENDS = [kind for kind in ALL if issubclass(kind, ENDS_OF_ATTEMPTS)]


def answered(kind: type[of_server.SecateurError]) -> errors.ApiError:
    document = {"title": kind.title, "status": kind.status, "detail": "as told", "code": kind.code, "param": "p"}
    return error_from(httpx.Response(kind.status, json=document, request=httpx.Request("GET", "http://server/")))


@pytest.mark.parametrize("kind", REFUSALS, ids=[kind.code for kind in REFUSALS])
def test_a_refusal_has_a_class_of_the_same_name_below_that_of_its_family(kind: type[of_server.SecateurError]) -> None:
    refused = answered(kind)
    assert (refused.code, refused.detail, refused.param) == (kind.code, "as told", "p")
    if kind in FAMILIES:
        return
    assert type(refused).__name__ == kind.__name__
    for family in kind.__mro__[1:]:
        if family in REFUSALS and family not in FAMILIES:
            assert issubclass(type(refused), getattr(errors, family.__name__)), family


@pytest.mark.parametrize("kind", ENDS, ids=[kind.code for kind in ENDS])
def test_the_end_of_a_job_is_raised_with_its_code(kind: type[of_server.SecateurError]) -> None:
    error = {"code": kind.code, "message": "as told", "param": None, "retryable": kind.retryable}
    with pytest.raises(errors.JobFailed, match="as told") as failed:
        Job.model_validate(job(status="failed", error=error)).raise_for_status()
    assert failed.value.code == kind.code and failed.value.job.error is not None
    assert isinstance(failed.value, errors.GateMissed) == (kind is of_server.GateMissed)


def test_a_wait_for_a_job_that_must_succeed(client: Client, script: Script) -> None:
    script.events = life("succeeded")
    assert client.wait(JOB_ID).raise_for_status().id == JOB_ID
    script.job = job(status="cancelled")
    with pytest.raises(errors.JobCancelled, match="was cancelled") as cancelled:
        client.wait(JOB_ID).raise_for_status()
    assert cancelled.value.code == "cancelled" and not isinstance(cancelled.value, errors.JobFailed)
    with pytest.raises(ValueError, match="running: wait"):
        Job.model_validate(job(status="running")).raise_for_status()
