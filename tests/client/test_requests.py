import socket
from itertools import islice
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from secateur import Client, errors
from tests.client.script import JOB_ID, KEY, Script, job, model, problem


def test_lists_are_read_page_by_page_as_far_as_they_are_wanted(client: Client, script: Script) -> None:
    script.page_size = 2
    script.models = [model(f"m{number}") for number in range(5)]
    assert [each.name for each in client.models()] == ["m0", "m1", "m2", "m3", "m4"]
    assert len(script.requests("GET", "/v1/models")) == 3
    assert next(iter(client.models())).name == "m0"
    assert len(script.requests("GET", "/v1/models")) == 4


def test_jobs_are_filtered_by_the_server(client: Client, script: Script) -> None:
    script.jobs = [job()]
    found = list(islice(client.jobs(status="succeeded", method="wanda", model="m", metadata={"commit": "a&b"}), 5))
    assert [each.id for each in found] == [JOB_ID]
    query = script.requests("GET", "/v1/jobs")[0].query
    assert query == {"limit": "100", "status": "succeeded", "method": "wanda", "model": "m", "metadata.commit": "a&b"}
    assert next(iter(client.jobs(search="oak wanda", sort="finished"))).id == JOB_ID
    assert script.requests("GET", "/v1/jobs")[1].query == {"limit": "100", "search": "oak wanda", "sort": "finished"}


def test_a_submission_carries_the_body_and_a_key_of_its_own(client: Client, script: Script) -> None:
    body: dict[str, Any] = {"model": "m", "method": "wanda", "sparsity": 0.5, "parameters": {"variant": True}}
    first = client.submit(**body)
    client.submit(**body)
    client.submit(idempotency_key="mine", **body)
    requests = script.requests("POST", "/v1/jobs")
    assert first.status == "queued" and not first.finished
    assert all(each.body == body and each.headers["authorization"] == f"Bearer {KEY}" for each in requests)
    keys = [each.headers["idempotency-key"] for each in requests]
    assert len(set(keys)) == 3 and keys[2] == "mine"


def test_fields_of_a_newer_server_are_kept(client: Client, script: Script) -> None:
    script.job = job(colour="green")
    found = client.job(JOB_ID)
    assert found.model_dump(mode="json")["colour"] == "green"
    assert found.metrics is not None and found.metrics.perplexity["articles"].ratio == 2.248


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.PayloadTooLarge),
        (422, errors.InvalidRequest),
        (503, errors.Unavailable),
    ],
)
def test_a_problem_document_becomes_the_error_of_its_status(
    client: Client, script: Script, status: int, kind: type[errors.ApiError]
) -> None:
    script.answers["POST /v1/jobs"] = problem(status, "a_code", "what was wrong", "calibration.samples")
    with pytest.raises(errors.ApiError) as caught:
        client.submit(model="m", method="wanda")
    error = caught.value
    assert type(error) is kind
    found = (error.status, error.code, error.detail, error.param)
    assert found == (status, "a_code", "what was wrong", "calibration.samples")
    assert str(error) == "what was wrong" or (status == 401 and "key sct_… from the argument" in str(error))


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
