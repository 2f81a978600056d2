"""One trace from a request to the runner's tasks, as a collector gets it."""

from typing import Any

from fastapi.testclient import TestClient

from api.app import create_app
from core.settings import Settings
from tests.conftest import bearer
from tests.worker.collector import collector
from tests.worker.conftest import Queue, StartPart, eventually, is_registered

CALLER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER_SPAN = "00f067aa0ba902b7"


def test_one_trace_goes_from_the_request_to_the_runner(
    jobs: Queue, job_body: dict[str, Any], settings: Settings, member_key: str, start_part: StartPart
) -> None:
    with collector() as received:
        worker = start_part("worker", stand_in={}, SECATEUR_OTLP_ENDPOINT=received.url)
        eventually(lambda: is_registered(jobs))
        with TestClient(create_app(settings.model_copy(update={"otlp_endpoint": received.url}))) as api:
            headers = bearer(member_key) | {"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"}
            answer = api.post("/v1/jobs", json=job_body, headers=headers)
            assert answer.status_code == 201, answer.text
            job_id = answer.json()["id"]
            jobs.succeeded(job_id)
        expected = {
            *("POST /v1/jobs", "job.submit", "job.claim", "job.attempt"),
            *("stage.fetch", "stage.open", "stage.prune", "stage.evaluate", "stage.verify", "stage.store"),
            *("runner.prune", "runner.measure", "runner.verify"),
        }
        eventually(lambda: expected <= received.by_name().keys())
        spans = received.by_name()
        worker.end()
    assert {spans[name].trace_id.hex() for name in expected} == {CALLER_TRACE}
    assert {service for service, _ in received.spans} == {"secateur-api", "secateur-worker"}

    def parent(name: str) -> str:
        own = spans[name].parent_span_id
        return next((other for other in expected if spans[other].span_id == own), own.hex())

    assert parent("POST /v1/jobs") == CALLER_SPAN
    assert parent("job.submit") == "POST /v1/jobs"
    assert parent("job.claim") == parent("job.attempt") == "job.submit"
    assert all(parent(name) == "job.attempt" for name in expected if name.startswith(("stage.", "runner.")))
    assert jobs.row(job_id).request_id == answer.headers["X-Request-Id"]
    [seen] = [line for line in jobs.logs(job_id) if line.startswith("traceparent ")]
    assert seen == f"traceparent 00-{CALLER_TRACE}-{spans['runner.prune'].span_id.hex()}-01"
    attributes = {each.key: each.value for each in spans["job.attempt"].attributes}
    assert attributes["secateur.job"].string_value == job_id
    assert attributes["secateur.end"].string_value == "succeeded"
    for name in expected:
        assert spans[name].start_time_unix_nano <= spans[name].end_time_unix_nano
