"""The real child, in its sandbox, and a job on what it found."""

import json
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load_file, save_file

from core.database import transaction
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.service.jobs import queue
from core.settings import Settings
from tests.discoveries.conftest import Fleet
from tests.model_folders import write_llama
from worker.runner.client import RUNNER
from worker.supervisor.discoverer import Discoverer
from worker.supervisor.supervisor import Supervisor


@pytest.fixture
def olmo(settings: Settings) -> Path:
    """OLMo, which is a Llama whose norms have no weights."""
    folder = write_llama(settings.models_root / "olmo").absolute()
    weights = load_file(folder / "model.safetensors")
    without_norms = {name: tensor for name, tensor in weights.items() if "norm" not in name}
    save_file(without_norms, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    named = {"architectures": ["OlmoForCausalLM"], "model_type": "olmo"}
    (folder / "config.json").write_text(json.dumps(config | named))
    return folder


def test_a_model_that_nobody_listed_is_discovered_and_pruned(api: TestClient, fleet: Fleet, olmo: Path) -> None:
    assert "OlmoForCausalLM" not in LANGUAGE_ARCHITECTURES
    api.post("/v1/models", json={"name": "olmo", "path": str(olmo)}).raise_for_status()
    body = {"model": "olmo", "method": "magnitude", "sparsity": 0.5}
    job_id = api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    assert Discoverer("worker_test", fleet.settings).discover_next(fleet.sessions)
    assert fleet.row().state == "found", fleet.row().error
    assert fleet.resolve() == 1
    with transaction(fleet.sessions) as session:
        claim = queue.claim(session, queue="default", worker_id="worker_test", lease_seconds=600)
    assert claim is not None
    supervisor = Supervisor(fleet.settings, fleet.sessions, fleet.store, stop=threading.Event(), runner=RUNNER)
    assert supervisor.run(claim) == "succeeded", api.get(f"/v1/jobs/{job_id}").json()["error"]
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert job["metrics"]["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.01)
    again = api.post("/v1/models/inspect", json={"model": f"job:{job_id}"})
    assert again.status_code == 200 and again.json()["architecture"] == "OlmoForCausalLM"
