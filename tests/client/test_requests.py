import socket
from collections.abc import Iterator

import httpx
import pytest
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from secateur import Client, errors
from secateur.jobs import Job
from secateur.transport.problems import error_from
from secateur_wire.errors import RunFailed
from tests.client.script import JOB_ID, KEY, Script, job, life, model


def test_lists_are_read_page_by_page_as_far_as_they_are_wanted(client: Client, script: Script) -> None:
    script.page_size = 2
    script.models = [model(f"m{number}") for number in range(5)]
    assert [each.name for each in client.models()] == ["m0", "m1", "m2", "m3", "m4"]
    assert len(script.requests("GET", "/v1/models")) == 3
    assert next(iter(client.models())).name == "m0"
    assert len(script.requests("GET", "/v1/models")) == 4


def test_a_wrong_key_is_the_servers_to_refuse(url: str) -> None:
    with (
        Client(url, "sct_other") as client,
        pytest.raises(errors.Unauthenticated, match=r"not known \(the key sct… from the argument api_key\)"),
    ):
        list(client.models())


def test_a_page_of_a_proxy_is_an_error_of_the_server(client: Client, script: Script) -> None:
    script.answers[f"GET /v1/jobs/{JOB_ID}"] = HTMLResponse("<h1>Bad\n gateway</h1>", 502)
    with pytest.raises(errors.ServerError, match="502 Bad Gateway: <h1>Bad gateway</h1>") as caught:
        client.job(JOB_ID)
    assert caught.value.code == "http_502"


@pytest.mark.parametrize(
    "answer", [HTMLResponse("<h1>hello</h1>"), JSONResponse({"id": 1}), RedirectResponse("https://elsewhere.example")]
)
def test_what_does_not_speak_the_api_is_recognised(client: Client, script: Script, answer: HTMLResponse) -> None:
    script.answers[f"GET /v1/jobs/{JOB_ID}"] = answer
    with pytest.raises(errors.UnexpectedAnswer, match="SECATEUR_URL"):
        client.job(JOB_ID)


def test_a_refused_connection_says_how_to_start_a_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        with (
            Client(f"http://127.0.0.1:{unused.getsockname()[1]}", KEY) as client,
            pytest.raises(errors.Unreachable, match="secateur serve"),
        ):
            client.methods()


@pytest.mark.parametrize("job_id", ["", ".", ".."])
def test_an_id_that_would_be_another_address_is_refused(client: Client, script: Script, job_id: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="is not an id"):
        client.job(job_id)
    assert not script.seen


def test_an_id_is_one_segment_of_the_address(client: Client, script: Script) -> None:
    with pytest.raises(errors.NotFound):
        client.job("../models?x=1")
    assert script.seen[0].path == "/v1/jobs/../models?x=1" and script.seen[0].query == {}


def test_a_body_that_json_cannot_hold_is_refused_before_it_is_sent(client: Client, script: Script) -> None:
    with pytest.raises(errors.ConfigurationError, match="JSON"):
        client.submit(model="m", method="wanda", sparsity=float("nan"))
    assert not script.seen


ENDS_OF_ATTEMPTS = (RunFailed,)
"""What a job ended with, never an answer to a request; but for those two which any request can meet."""
ANSWERED_TOO = (errors.DiskFull, errors.InternalError)
FAMILIES = (errors.ServerError, *ENDS_OF_ATTEMPTS)
"""Never raised themselves: what they stand for has classes of its own."""


def tree(kind: type[errors.ApiError]) -> Iterator[type[errors.ApiError]]:
    for each in kind.__subclasses__():
        yield each
        yield from tree(each)


ALL = sorted(set(tree(errors.ApiError)) - {*FAMILIES}, key=lambda kind: kind.code)
REFUSALS = [kind for kind in ALL if not issubclass(kind, ENDS_OF_ATTEMPTS) or issubclass(kind, ANSWERED_TOO)]
ENDS = [kind for kind in ALL if issubclass(kind, ENDS_OF_ATTEMPTS)]


def test_a_refusal_is_raised_as_the_class_it_has_on_the_server() -> None:
    for kind in REFUSALS:
        document = {"title": kind.title, "status": kind.status, "detail": "as told", "code": kind.code, "param": "p"}
        refused = error_from(httpx.Response(kind.status, json=document, request=httpx.Request("GET", "http://server/")))
        assert type(refused) is kind is getattr(errors, kind.__name__) and str(refused) == refused.detail == "as told"
        assert (refused.code, refused.status, refused.title, refused.param) == (kind.code, kind.status, kind.title, "p")


def test_the_end_of_a_job_is_raised_with_its_code() -> None:
    for kind in ENDS:
        error = {"code": kind.code, "message": "as told", "param": None, "retryable": kind.retryable}
        with pytest.raises(errors.JobFailed, match="as told") as failed:
            Job.model_validate(job(status="failed", error=error)).raise_for_status()
        assert failed.value.code == kind.code and failed.value.job.error is not None
        assert isinstance(failed.value, errors.GateMissed) == (kind.code == "gate_missed")


def test_a_wait_for_a_job_that_must_succeed(client: Client, script: Script) -> None:
    script.events = life("succeeded")
    assert client.wait(JOB_ID).raise_for_status().id == JOB_ID
    script.job = job(status="cancelled")
    with pytest.raises(errors.JobCancelled, match="was cancelled") as cancelled:
        client.wait(JOB_ID).raise_for_status()
    assert cancelled.value.code == "cancelled" and not isinstance(cancelled.value, errors.JobFailed)
    with pytest.raises(ValueError, match="running: wait"):
        Job.model_validate(job(status="running")).raise_for_status()
