"""The client raises the server's own classes."""

from collections.abc import Iterator

import httpx
import pytest

import secateur
from secateur import Client, errors
from secateur.jobs import Job
from secateur.transport.problems import error_from
from secateur_wire.errors import RunFailed
from secateur_wire.jobs import NEEDS_CHANGE
from tests.client.script import JOB_ID, Script, job, life

ENDS_OF_ATTEMPTS = (RunFailed,)
"""What a job ended with, never an answer to a request; but for those two which any request can meet."""
ANSWERED_TOO = (errors.DiskFull, errors.InternalError)
DECIDING = (errors.InvalidRequest, errors.Conflict, *ENDS_OF_ATTEMPTS)
FAMILIES = (errors.ServerError, *ENDS_OF_ATTEMPTS)
"""Never raised themselves: what they stand for has classes of its own."""


def tree(kind: type[errors.ApiError]) -> Iterator[type[errors.ApiError]]:
    for each in kind.__subclasses__():
        yield each
        yield from tree(each)


ALL = sorted(set(tree(errors.ApiError)) - {*FAMILIES}, key=lambda kind: kind.code)
REFUSALS = [kind for kind in ALL if not issubclass(kind, ENDS_OF_ATTEMPTS) or issubclass(kind, ANSWERED_TOO)]
ENDS = [kind for kind in ALL if issubclass(kind, ENDS_OF_ATTEMPTS)]


@pytest.mark.parametrize("kind", REFUSALS, ids=[kind.code for kind in REFUSALS])
def test_a_refusal_is_raised_as_the_class_it_has_on_the_server(kind: type[errors.ApiError]) -> None:
    document = {"title": kind.title, "status": kind.status, "detail": "as told", "code": kind.code, "param": "p"}
    answer = httpx.Response(kind.status, json=document, request=httpx.Request("GET", "http://server/"))
    refused = error_from(answer)
    assert type(refused) is kind is getattr(errors, kind.__name__) and str(refused) == refused.detail == "as told"
    assert (refused.code, refused.status, refused.title, refused.param) == (kind.code, kind.status, kind.title, "p")


@pytest.mark.parametrize("kind", ENDS, ids=[kind.code for kind in ENDS])
def test_the_end_of_a_job_is_raised_with_its_code(kind: type[errors.ApiError]) -> None:
    error = {"code": kind.code, "message": "as told", "param": None, "retryable": kind.retryable}
    with pytest.raises(errors.JobFailed, match="as told") as failed:
        Job.model_validate(job(status="failed", error=error)).raise_for_status()
    assert failed.value.code == kind.code and failed.value.job.error is not None
    assert isinstance(failed.value, errors.GateMissed) == (kind.code == "gate_missed")


def test_every_class_decides_whether_its_job_needs_a_change() -> None:
    deciding = [kind for kind in ALL if issubclass(kind, DECIDING) and kind.__module__ == RunFailed.__module__]
    silent = [kind.__name__ for kind in deciding if "needs_change" not in vars(kind)]
    assert not silent, f"write needs_change = True where a job that ended so would end so again: {silent}"
    decided = {kind.code for kind in ALL if kind.needs_change}
    assert decided == NEEDS_CHANGE and {"target_unreachable", "gate_missed", "not_found"} <= decided
    assert not decided & {kind.code for kind in ALL if kind.retryable}


def test_a_wait_for_a_job_that_must_succeed(client: Client, script: Script) -> None:
    script.events = life("succeeded")
    assert client.wait(JOB_ID).raise_for_status().id == JOB_ID
    script.job = job(status="cancelled")
    with pytest.raises(errors.JobCancelled, match="was cancelled") as cancelled:
        client.wait(JOB_ID).raise_for_status()
    assert cancelled.value.code == "cancelled" and not isinstance(cancelled.value, errors.JobFailed)
    with pytest.raises(ValueError, match="running: wait"):
        Job.model_validate(job(status="running")).raise_for_status()


def test_a_class_that_has_left_names_its_successor() -> None:
    with pytest.raises(AttributeError, match=r"asyncio\.to_thread"):
        secateur.AsyncClient  # noqa: B018
