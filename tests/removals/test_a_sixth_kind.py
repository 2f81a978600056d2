"""A kind of removal is one folder: one that lies elsewhere goes through every part of the service as it runs.

`biases` is such a kind, with a method, and nothing of the product names either. `secateur serve` runs as it is; a file
that Python loads at its start (`sitecustomize`) shows every process where to look besides.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from bench.parts import free_port
from secateur_wire.provenance import PROVENANCE
from tests.engine.tiny import make_model
from tests.runner.models import write_model, write_words
from tests.worker.conftest import eventually, runner_of
from worker.processes import spawn

LAYERS = 6
OF_A_LAYER = {"attention_bias": 96, "mlp_bias": 128}
"""Biases of the tiny model's layers, by the setting of the config that gives them."""
MOST = sum(OF_A_LAYER.values())


@pytest.fixture(scope="module")
def service() -> Iterator[httpx.Client]:
    """A service that knows the kind, with a model, a text, and the key of its first team."""
    with TemporaryDirectory(prefix="secateur-test-") as place:
        home, inputs = Path(place, "home"), Path(place, "inputs")
        model = write_model(inputs / "model", LAYERS)
        make_model(model, num_hidden_layers=LAYERS, attention_bias=True, mlp_bias=True)
        text = write_words(inputs / "words.txt")
        port = free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
        environment = kept | {
            "PYTHONPATH": str(Path(__file__).with_name("biases")),
            "SECATEUR_HOME": str(home),
            "SECATEUR_ALLOWED_ROOTS": str(inputs),
            "SECATEUR_RETRY_DELAY_SECONDS": "0",
            "SECATEUR_DISPATCH_INTERVAL_SECONDS": "0.2",
            "SECATEUR_WORKER_POLL_SECONDS": "0.5",
            "SECATEUR_REQUESTS_PER_MINUTE": "0",
        }
        command = (sys.executable, "-c", "from secateur.cli import main; main()", "serve", "--port", str(port))
        with (inputs / "serve.log").open("wb") as log:
            server = spawn(command, name="serve", stdout=log, stderr=subprocess.STDOUT, environment=environment)
        try:
            eventually(lambda: (home / "url").exists() or not server.is_running())
            assert server.is_running(), (inputs / "serve.log").read_text()
            key = {"Authorization": f"Bearer {(home / 'api-key').read_text().strip()}"}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=key, timeout=60) as client:
                client.server_pid = server.pid
                for path, name, file in (("/v1/models", "biased", model), ("/v1/datasets", "words", text)):
                    client.post(path, json={"name": name, "path": str(file)}).raise_for_status()
                yield client
        finally:
            server.end(grace_seconds=60)


BODY: dict[str, Any] = {
    "model": "biased",
    "method": "drop-biases",
    "evaluation": {"datasets": ["words"], "samples": 8, "sequence_length": 32},
}


def ended(service: httpx.Client, body: dict[str, Any], *, killed: bool = False) -> dict[str, Any]:
    """Return a job once it has ended; its runner is killed once, when a part of the pass is done, where `killed`."""
    created = service.post("/v1/jobs", json=body)
    assert created.is_success, created.text
    job = created.json()

    def look() -> dict[str, Any] | None:
        nonlocal killed
        answer: dict[str, Any] = service.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
        runner = runner_of(service.server_pid) if killed and answer["stage"] == "prune" else None  # type: ignore[attr-defined]
        if runner is not None and answer["progress"] > 0.2:
            os.kill(runner, signal.SIGKILL)
            killed = False
        return answer if answer["status"] in ("succeeded", "failed", "cancelled") else None

    answer = eventually(look)
    assert answer["status"] == "succeeded", answer["error"]
    assert not killed
    return answer


def files_of(service: httpx.Client, job: dict[str, Any]) -> dict[str, bytes]:
    path = f"/v1/jobs/{job['id']}/artifacts"
    listed = service.get(path).raise_for_status().json()["data"]
    return {each["path"]: service.get(f"{path}/{each['path']}").raise_for_status().content for each in listed}


@pytest.fixture(scope="module")
def job(service: httpx.Client) -> dict[str, Any]:
    """A job that nothing disturbed."""
    return ended(service, BODY | {"sparsity": 0.01})


def parameters(service: httpx.Client) -> int:
    answer = service.post("/v1/models/inspect", json={"model": "biased"}).raise_for_status().json()
    return int(answer["parameters"])


def test_what_is_out_of_reach_is_refused_with_the_nearest(service: httpx.Client) -> None:
    refused = service.post("/v1/jobs", json=BODY | {"sparsity": 0.5})
    nearest = LAYERS * MOST / parameters(service)
    assert refused.status_code == 422
    assert refused.json()["detail"] == (
        "sparsity 0.5: no such share of this model is biases; the nearest is "
        f"{nearest:.6f}, attention_bias and mlp_bias"
    )
    dense = parameters(service)
    target = {"target": {"parameters": dense // 2}}
    refused = service.post("/v1/jobs", json=BODY | target)
    assert (
        f"cannot be reached by drop-biases on this model: the nearest is {dense - LAYERS * MOST:,}"
        in refused.json()["detail"]
    )


def test_it_is_listed_and_estimated(service: httpx.Client) -> None:
    methods = service.get("/v1/methods").raise_for_status().json()["data"]
    assert "drop-biases" in [each["id"] for each in methods]
    answer = service.post("/v1/models/inspect", json=BODY | {"sparsity": 0.01}).raise_for_status().json()
    left = parameters(service) - LAYERS * OF_A_LAYER["attention_bias"]
    assert answer["estimate"]["peak_memory_bytes"] > 0
    assert answer["artifact"]["parameters"] == pytest.approx(left, abs=0.01 * left)


def test_the_planner_proposes_it_within_its_reach(service: httpx.Client) -> None:
    asked = {"model": "biased", "goal": "speed"}
    plan = service.post("/v1/plans", json=asked | {"amount": 0.01}).raise_for_status().json()
    assert plan["job"]["method"] == "drop-biases"
    assert [each["amount"] for each in plan["points"]] == [0.01]
    assert "it is tried here" in [each["reason"] for each in plan["choices"]]
    beyond = service.post("/v1/plans", json=asked | {"amount": 0.2}).raise_for_status().json()
    most = LAYERS * MOST / parameters(service)
    assert beyond["job"]["method"] != "drop-biases"
    assert f"drop-biases can remove at most {most:.4g} of this model" in str(beyond["choices"])


def test_a_target_takes_the_least_that_meets_it(service: httpx.Client) -> None:
    dense = parameters(service)
    too_many = dense - LAYERS * OF_A_LAYER["attention_bias"]
    reached = ended(service, BODY | {"target": {"parameters": too_many - 1}})
    assert reached["metrics"]["parameters"]["nonzero"] == dense - LAYERS * OF_A_LAYER["mlp_bias"]


def test_biases_are_gone_from_the_artifact_and_the_report_says_so(service: httpx.Client, job: dict[str, Any]) -> None:
    removed = LAYERS * OF_A_LAYER["attention_bias"]
    assert job["metrics"]["parameters"]["nonzero"] == job["metrics"]["parameters"]["dense"] - removed
    report = service.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    assert [(row["layer"], row["kind"], row["before"], row["after"]) for row in report["layers"]] == [
        (layer, "biases", MOST, OF_A_LAYER["mlp_bias"]) for layer in range(LAYERS)
    ]
    share = OF_A_LAYER["attention_bias"] / MOST
    assert report["biases"] == [{"layer": layer, "share": share} for layer in range(LAYERS)]
    files = files_of(service, job)
    assert b'"mlp_bias": true' in files["config.json"] and b'"attention_bias": false' in files["config.json"]
    assert f": {removed:,} of {LAYERS * MOST:,} biases. No matrix lost a weight." in files["README.md"].decode()
    assert b"biases kept" in files["layers.svg"] and b"biases gone" in files["layers.svg"]


def test_the_page_shows_it(service: httpx.Client, job: dict[str, Any]) -> None:
    key = service.headers["Authorization"].removeprefix("Bearer ")
    with httpx.Client(base_url=service.base_url, timeout=60) as browser:
        browser.post("/portal/sign-in", data={"key": key})
        page = browser.get(f"/portal/jobs/{job['id']}").raise_for_status().text
        form = browser.get("/portal/new/full?model=biased&method=drop-biases")
        new = browser.get("/portal/new?model=biased")
    assert form.is_success and new.is_success
    assert "Drop biases" in page
    assert page.count(f"{MOST} → {OF_A_LAYER['mlp_bias']} biases") == LAYERS
    assert "drop-biases" in form.text and "drop-biases" in new.text


def test_a_runner_killed_with_9_goes_on_to_the_same_bytes(service: httpx.Client, job: dict[str, Any]) -> None:
    again = ended(service, BODY | {"sparsity": 0.01, "parameters": {"seed": 1}}, killed=True)
    assert again["attempt"] == 2
    report = service.get(f"/v1/jobs/{again['id']}/report").raise_for_status().json()
    assert report["engine"]["resumed_from_block"] > 0
    before, after = files_of(service, job), files_of(service, again)
    assert all(before[name] == after[name] for name in before if name not in ("README.md", "secateur.json", PROVENANCE))
