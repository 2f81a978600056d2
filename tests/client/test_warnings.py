"""Warnings about jobs that can be run: the same in an inspection, in the job, on the command line and on its page."""

from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import heartbeat
from secateur_wire.progress import between
from tests.client.command_line import RunHere
from tests.portal.browserless import Browserless

WANDA = {"method": "wanda", "pattern": "2:4", "sparsity": None}


def add_worker(sessions: sessionmaker[Session], device: str) -> None:
    with transaction(sessions) as session:
        heartbeat(session, f"worker_{device}", queue="default", device=device, hostname="bed", pid=1)


def warnings(api: httpx.Client, body: dict[str, Any]) -> list[str]:
    """Return the warnings of an inspection, which the submitted job has too."""
    inspected = api.post("/v1/models/inspect", json=body).raise_for_status().json()["estimate"]["warnings"]
    job = api.post("/v1/jobs", json=body).raise_for_status().json()
    assert job["warnings"] == inspected == api.get(f"/v1/jobs/{job['id']}").json()["warnings"]
    return list(inspected)


@pytest.mark.parametrize("change", [WANDA, {"method": "magnitude"}], ids=["2:4", "unstructured"])
def test_a_gate_on_the_latency_of_zeros_is_warned_of_as_the_target_is_refused(
    live_api: httpx.Client, job_body: dict[str, Any], sessions: sessionmaker[Session], change: dict[str, Any]
) -> None:
    add_worker(sessions, "cpu")
    body = job_body | change
    target = body | {"pattern": "unstructured", "sparsity": None, "target": {"latency_ratio": 0.8}}
    refused = live_api.post("/v1/jobs", json=target)
    assert (refused.status_code, refused.json()["param"]) == (422, "target.latency_ratio")
    reason = refused.json()["detail"].removeprefix("target.latency_ratio: ")
    assert reason.startswith("no speed-up is expected of zeros")
    (warning,) = warnings(live_api, body | {"gates": {"max_latency_ratio": 0.8}})
    assert warning == f"gates.max_latency_ratio 0.8 will most likely be missed: {reason}"
    assert warnings(live_api, body | {"gates": {"max_latency_ratio": 1.5}}) == []
    assert warnings(live_api, body) == []


def test_what_is_smaller_may_have_a_gate_on_its_latency(live_api: httpx.Client, job_body: dict[str, Any]) -> None:
    body = job_body | {"method": "llm-pruner", "sparsity": 0.25, "gates": {"max_latency_ratio": 0.9}}
    assert warnings(live_api, body) == []


def test_float16_where_no_worker_has_a_gpu(
    live_api: httpx.Client, job_body: dict[str, Any], sessions: sessionmaker[Session]
) -> None:
    asked = job_body | {"method": "wanda", "parameters": {"forward_dtype": "float16"}}
    assert warnings(live_api, asked) == [], "without a worker nothing is known of its device"
    add_worker(sessions, "cpu")
    (warning,) = warnings(live_api, asked)
    assert warning.startswith("parameters.forward_dtype float16: the workers of queue 'default' have no GPU")
    assert warnings(live_api, asked | {"parameters": {"forward_dtype": "bfloat16"}}) == []
    add_worker(sessions, "cuda:0")
    assert warnings(live_api, asked) == []


def test_commands_and_pages_show_time_and_warnings(
    here: RunHere, live_api: httpx.Client, admin_key: str, job_body: dict[str, Any], sessions: sessionmaker[Session]
) -> None:
    add_worker(sessions, "cpu")
    calibration = job_body["calibration"]
    options = [
        *("--method", "wanda", "--sparsity", "0.5", "--parameter", "forward_dtype=float16", "--sequence-length", "32"),
        *("--calibration", calibration["dataset"], "--calibration-samples", str(calibration["samples"])),
    ]
    tried = here("inspect", job_body["model"], *options, "--json").json["estimate"]
    shown = here("inspect", job_body["model"], *options).out
    (time,) = (line for line in shown.splitlines() if line.startswith("time "))
    assert time.split(maxsplit=1)[1].rstrip() == between(tried["seconds"], tried["seconds"]), (
        "no job has shown the spread"
    )
    assert "parameters.forward_dtype float16" in " ".join(shown.split())
    sent = here("submit", job_body["model"], *options, "--max-latency-ratio", "0.9", "--id")
    assert sent.code == 0 and sent.out.startswith("job_") and len(sent.out.splitlines()) == 1
    warned = [line for line in sent.err.splitlines() if "event=request" not in line]  # the API logs in this process
    assert [line.partition("warning: ")[2].partition(" ")[0] for line in warned] == [
        "gates.max_latency_ratio",
        "parameters.forward_dtype",
    ]
    somebody = Browserless(live_api, admin_key)
    page = somebody.http.get(f"/portal/jobs/{sent.out.strip()}").text
    somebody.close()
    assert "gates.max_latency_ratio 0.9 will most likely be missed" in page
