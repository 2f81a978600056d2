"""The real child, in its sandbox, on a model that nobody listed."""

from fastapi.testclient import TestClient
from transformers import MixtralConfig, MixtralForCausalLM

from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.settings import Settings
from tests.discoveries.conftest import Fleet
from worker.supervisor.discoverer import Discoverer


def test_a_model_that_nobody_listed_is_discovered_and_its_jobs_can_be_claimed(
    api: TestClient, fleet: Fleet, settings: Settings
) -> None:
    assert "MixtralForCausalLM" not in LANGUAGE_ARCHITECTURES
    folder = settings.models_root / "mixtral"
    config = MixtralConfig(
        vocab_size=96, max_position_embeddings=64, hidden_size=32, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(folder)
    api.post("/v1/models", json={"name": "mixtral", "path": str(folder.absolute())}).raise_for_status()
    body = {"model": "mixtral", "method": "magnitude", "sparsity": 0.5}
    job_id = api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    assert Discoverer("worker_test", fleet.settings).take_next(fleet.sessions)
    assert fleet.row().state == "found", fleet.row().error
    assert fleet.resolve() == 1 and fleet.hints == [job_id]
    known = api.get("/v1/models/mixtral").json()
    assert known["discovery"] is None and known["prunable_parameters"] > 0
