"""The real child, in its sandbox, and a job on what it found."""

import json
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from transformers import MixtralConfig, MixtralForCausalLM

from core.database import transaction
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.service.jobs import queue
from core.settings import Settings
from tests.discoveries.conftest import Fleet
from tests.model_folders import write_llama
from worker.supervisor.discoverer import Discoverer
from worker.supervisor.supervisor import Supervisor


@pytest.fixture
def mixtral(settings: Settings) -> Path:
    """A mixture of four experts, with the tokenizer of a Llama."""
    folder = write_llama(settings.models_root / "mixtral").absolute()
    known = json.loads((folder / "config.json").read_text())
    config = MixtralConfig(
        vocab_size=known["vocab_size"], max_position_embeddings=known["max_position_embeddings"], hidden_size=32,
        intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
        num_experts_per_tok=2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_model_that_nobody_listed_is_discovered_and_pruned(api: TestClient, fleet: Fleet, mixtral: Path) -> None:
    assert "MixtralForCausalLM" not in LANGUAGE_ARCHITECTURES
    api.post("/v1/models", json={"name": "mixtral", "path": str(mixtral)}).raise_for_status()
    body = {"model": "mixtral", "method": "magnitude", "sparsity": 0.5}
    job_id = api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    assert Discoverer("worker_test", fleet.settings).take_next(fleet.sessions)
    assert fleet.row().state == "found", fleet.row().error
    assert fleet.resolve() == 1
    with transaction(fleet.sessions) as session:
        claim = queue.claim(session, queue="default", worker_id="worker_test", lease_seconds=600)
    assert claim is not None
    supervisor = Supervisor(fleet.settings, fleet.sessions, fleet.store, stop=threading.Event())
    assert supervisor.run(claim) == "succeeded", api.get(f"/v1/jobs/{job_id}").json()["error"]
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert job["metrics"]["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.01)
    routing = api.get(f"/v1/jobs/{job_id}/report").json()["routing"]
    assert [len(each["tokens"]) for each in routing] == [4, 4]
    again = api.post("/v1/models/inspect", json={"model": f"job:{job_id}"})
    assert again.status_code == 200 and again.json()["architecture"] == "MixtralForCausalLM"
