"""One trace from a request to the runner's tasks, as a collector gets it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from api.app import create_app
from core.settings import Settings
from tests.conftest import bearer
from tests.worker.conftest import Queue, StartPart, eventually, is_registered

CALLER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER_SPAN = "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """A collector on loopback, speaking OTLP over HTTP; `spans` holds what came, by name, with who sent it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: dict[str, tuple[str, Span]] = {}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans |= {span.name: (attributes["service.name"], span) for span in scope.spans}
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_one_trace_goes_from_the_request_to_the_runner(
    jobs: Queue, job_body: dict[str, Any], settings: Settings, member_key: str, start_part: StartPart
) -> None:
    expected = {
        *("POST /v1/jobs", "job.submit", "job.claim", "job.attempt"),
        *("stage.fetch", "stage.open", "stage.prune", "stage.evaluate", "stage.verify", "stage.store"),
        *("runner.prune", "runner.measure", "runner.verify"),
    }
    with Collector() as received:
        threading.Thread(target=received.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{received.server_port}"
        worker = start_part("worker", stand_in={}, SECATEUR_OTLP_ENDPOINT=url)
        eventually(lambda: is_registered(jobs))
        with TestClient(create_app(settings.model_copy(update={"otlp_endpoint": url}))) as api:
            headers = bearer(member_key) | {"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"}
            answer = api.post("/v1/jobs", json=job_body, headers=headers)
            assert answer.status_code == 201, answer.text
            job_id = answer.json()["id"]
            jobs.succeeded(job_id)
        eventually(lambda: expected <= received.spans.keys())
        worker.end()
        received.shutdown()
    spans = {name: received.spans[name][1] for name in expected}
    assert {span.trace_id.hex() for span in spans.values()} == {CALLER_TRACE}
    assert {service for service, _ in received.spans.values()} == {"secateur-api", "secateur-worker"}

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
    attributes = {each.key: each.value.string_value for each in spans["job.attempt"].attributes}
    assert (attributes["secateur.job"], attributes["secateur.end"]) == (job_id, "succeeded")
