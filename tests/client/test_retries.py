import threading

import httpx
import pytest
from starlette.responses import HTMLResponse

from bench.parts import free_port
from secateur import Client, errors
from secateur.transport.retries import BACKOFF_LIMIT_SECONDS, LONGEST_RETRY_AFTER_SECONDS, RetryPolicy
from tests.client.script import JOB_ID, KEY, Script, problem
from tests.client.scripted_server import serving

JOB = f"GET /v1/jobs/{JOB_ID}"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_failure_is_tried_again(client: Client, script: Script, status: int) -> None:
    script.passing[JOB] = [problem(status, "a_code", "later"), HTMLResponse("<h1>proxy</h1>", status)]
    assert client.job(JOB_ID).id == JOB_ID
    assert len(script.requests("GET", f"/v1/jobs/{JOB_ID}")) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_what_would_fail_again_is_not_tried_again(client: Client, script: Script, status: int) -> None:
    script.passing[JOB] = [problem(status, "a_code", "no")]
    with pytest.raises(errors.ApiError):
        client.job(JOB_ID)
    assert len(script.seen) == 1


def test_a_failure_that_does_not_pass_is_raised_in_the_end(client: Client, script: Script) -> None:
    script.answers[JOB] = problem(503, "unavailable", "the database cannot be reached right now")
    with pytest.raises(errors.Unavailable, match="database"):
        client.job(JOB_ID)
    assert len(script.seen) == 5


def test_all_tries_of_a_submission_share_one_idempotency_key(client: Client, script: Script) -> None:
    script.passing["POST /v1/jobs"] = [problem(503, "unavailable", "later"), problem(429, "rate_limited", "later")]
    client.submit(model="m", method="wanda")
    keys = [each.headers["idempotency-key"] for each in script.requests("POST", "/v1/jobs")]
    assert len(keys) == 3 and len(set(keys)) == 1


def test_the_server_says_how_long_to_wait(url: str, script: Script) -> None:
    told: list[tuple[str, float]] = []
    script.passing[JOB] = [problem(429, "rate_limited", "too many requests", headers={"Retry-After": "1"})]
    with Client(url, KEY, on_retry=lambda error, pause: told.append((str(error), pause))) as client:
        client.job(JOB_ID)
    [(message, pause)] = told
    assert message == "too many requests" and 1 <= pause < 1.5


def test_a_long_wait_is_left_to_the_caller(client: Client, script: Script) -> None:
    more = {"Retry-After": "86400", "X-Request-Id": "req_1"}
    script.answers["POST /v1/jobs"] = problem(429, "quota_exceeded", "no hours left", "queue", more, hours=3)
    with pytest.raises(errors.QuotaExceeded) as caught:
        client.submit(model="m", method="wanda")
    error = caught.value
    assert (error.retry_after, error.request_id, error.members, error.param) == (86400, "req_1", {"hours": 3}, "queue")
    assert len(script.seen) == 1


def test_pauses_grow_up_to_a_limit_and_differ() -> None:
    policy = RetryPolicy(retries=50)
    refused = httpx.ConnectError("refused")
    pauses = [[policy.pause(refused, tried) or 0 for _ in range(20)] for tried in range(50)]
    assert all(len(set(each)) > 1 for each in pauses)
    assert max(pauses[0]) < min(pauses[3]) and all(max(each) <= 1.5 * BACKOFF_LIMIT_SECONDS for each in pauses)
    assert policy.pause(refused, 50) is None
    assert policy.pause(httpx.ReadTimeout("slow"), 0) is None
    assert policy.pause(httpx.ConnectTimeout("slow"), 0) is not None
    assert policy.pause(errors.Unavailable("d", retry_after=LONGEST_RETRY_AFTER_SECONDS), 0) is not None
    assert policy.pause(errors.Unavailable("d", retry_after=LONGEST_RETRY_AFTER_SECONDS + 1), 0) is None


def test_a_server_that_is_just_starting_is_waited_for(script: Script) -> None:
    port, refused = free_port(), threading.Event()
    found: list[str] = []

    def ask() -> None:
        with Client(f"http://127.0.0.1:{port}", KEY, retries=2000, on_retry=lambda *_: refused.set()) as client:
            found.append(client.job(JOB_ID).id)

    asking = threading.Thread(target=ask)
    asking.start()
    assert refused.wait(120)
    with serving(script, port=port):
        asking.join(timeout=60)
    assert found == [JOB_ID]
