"""Jobs whose artifact is in a narrower dtype than the model, with the real runner."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.database import transaction
from core.service.registry.schemas import ModelBody
from core.service.registry.service import read_model, register_model
from secateur_wire.weights.packed import unpack_folder
from tests.runner.conftest import Finish, Work, artifact
from tests.runner.models import register_layers, write_model
from tests.worker.conftest import Queue


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    layered = register_layers(jobs.sessions, jobs.settings, jobs.team, layers=3)
    return layered | {"output": {"dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def narrow(body: dict[str, Any], finish: Finish) -> str:
    """A finished job that pruned to zeros, trained after it, and packed them."""
    recovery = {"method": "finetune", "steps": 4, "batch_size": 2, "learning_rate": 1e-3}
    return finish(body | {"recovery": recovery, "output": {"dtype": "bfloat16", "format": "packed"}})


def dtypes(folder: Path) -> set[torch.dtype]:
    return {each.dtype for each in load_file(folder / "model.safetensors").values()}


def test_report_and_card_say_what_the_rounding_cost(jobs: Queue, narrow: str) -> None:
    job, report = jobs.job(narrow), jobs.report(narrow)
    assert job.metrics is not None and job.output.dtype == "bfloat16"
    sizes, parameters = job.metrics["bytes"], job.metrics["parameters"]["dense"]
    assert (sizes["dense"], sizes["artifact"]) == (4 * parameters, 2 * parameters)
    rounding = report["rounding"]
    assert rounding["weights"] == parameters and rounding["underflowed"] == 0
    assert 0 < rounding["largest_relative_error"] <= 2**-8
    figures = rounding["perplexity"]["words"]
    assert figures["dense"] == job.metrics["perplexity"]["words"]["dense"] != figures["rounded"]
    assert figures["ratio"] == pytest.approx(1, abs=0.01)
    assert 0 < figures["kl"] < 1e-3 and f"(KL {figures['kl']:.2g} nats)" in " ".join(report["notes"])
    (copy,) = (each for each in job.measured.alternatives if each.name == "dense in bfloat16")
    assert (copy.kl, copy.perplexity_ratio) == (figures["kl"], figures["ratio"])
    assert report["artifact"]["dtype"] == report["verification"]["dtype"] == "bfloat16"
    assert report["engine"]["model_dtype"] == "float32"
    assert report["verification"]["maximum_difference"] <= report["verification"]["tolerance"]
    card = (artifact(jobs, narrow) / "README.md").read_text()
    assert "Stored in bfloat16" in card and "No weight became zero by it" in card


def test_packed_weights_are_restored_in_it(jobs: Queue, narrow: str, tmp_path: Path) -> None:
    shutil.copytree(artifact(jobs, narrow), tmp_path / "dense")
    unpack_folder(tmp_path / "dense")
    assert dtypes(tmp_path / "dense") == {torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert model.dtype is torch.bfloat16


def test_a_job_on_that_artifact_goes_on_in_its_dtype(
    jobs: Queue, body: dict[str, Any], narrow: str, finish: Finish
) -> None:
    asked = {"method": "llm-pruner", "sparsity": 0.2, "parameters": {"protected_first": 1}}
    output = {"dtype": "bfloat16", "layout": "per_layer"}
    later = finish(body | asked | {"model": f"job:{narrow}", "output": output})
    assert dtypes(artifact(jobs, later)) == {torch.bfloat16} and "rounding" not in jobs.report(later)
    config = json.loads((artifact(jobs, later) / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_what_is_beyond_float16_ends_the_job_before_it_prunes(
    jobs: Queue, body: dict[str, Any], work: Work, tmp_path: Path
) -> None:
    folder = write_model(jobs.settings.models_root / "wide", 2)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 7e4
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with transaction(jobs.sessions) as session:
        register_model(
            session, jobs.team, read_model(ModelBody(name="wide", path=str(folder.resolve())), jobs.settings)
        )
    job_id = jobs.submit(body | {"model": "wide", "output": {"dtype": "float16"}})
    assert work().result(120) == "failed"
    job = jobs.job(job_id)
    assert job.error is not None and job.error.param == "output.dtype"
    assert "model.layers.1.mlp.up_proj.weight" in job.error.message
    assert not any(event.type == "progress" and event.data.get("block") for event in jobs.events(job_id))
