"""Jobs with the real runner: a tiny model pruned end to end, killed at each stage, refused where it cannot be used."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sqlalchemy.orm import Session, sessionmaker
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from core.artifacts.store import LocalStore, artifact_prefix
from core.database import transaction
from core.evaluation.generations import generate_side_by_side
from core.jobs import queue, service
from core.models.folder import open_model
from core.registry.schemas import DatasetBody, ModelBody
from core.registry.service import register_dataset, register_model
from core.settings import Settings
from secateur.packed import unpack_folder
from tests.engine.tiny import make_model
from tests.worker.conftest import Queue, eventually
from worker.supervisor import Supervisor

pytestmark = pytest.mark.timeout(300)
LAYERS = 6


def write_model(folder: Path, layers: int = LAYERS) -> Path:
    make_model(folder, num_hidden_layers=layers)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(96)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"threads": 1, "device": "cpu"})


def register_layers(
    sessions: sessionmaker[Session], settings: Settings, team: str, *, layers: int = LAYERS, samples: int = 8
) -> dict[str, Any]:
    """A job on a model of some layers, with text it can read."""
    folder = write_model(settings.models_root / "layered", layers)
    generator = numpy.random.default_rng(0)
    text = settings.datasets_root / "words.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("\n\n".join(" ".join(f"w{n}" for n in generator.integers(4, 96, 50)) for _ in range(40)))
    with transaction(sessions) as session:
        register_model(session, team, ModelBody(name="layered", path=str(folder.resolve())), settings)
        register_dataset(session, team, DatasetBody(name="words", path=str(text.resolve())), settings)
    return {
        "model": "layered", "method": "sparsegpt", "sparsity": 0.5,
        "calibration": {"dataset": "words", "samples": samples, "sequence_length": 32},
        "evaluation": {"datasets": ["words"], "samples": 8, "sequence_length": 32},
    }  # fmt: skip


@pytest.fixture
def body(sessions: sessionmaker[Session], settings: Settings, team: str) -> dict[str, Any]:
    return register_layers(sessions, settings, team)


Work = Callable[[], "Future[str]"]


@pytest.fixture
def work(settings: Settings, sessions: sessionmaker[Session], store: LocalStore) -> Work:
    """Claim once and run what was claimed, in a thread, with the product's own runner."""

    def start() -> "Future[str]":
        end: Future[str] = Future()

        def run() -> None:
            try:
                with transaction(sessions) as session:
                    claim = queue.claim(session, queue="default", worker_id="a thread", lease_seconds=60)
                assert claim is not None
                end.set_result(Supervisor(settings, sessions, store, stop=threading.Event()).run(claim))
            except BaseException as error:
                end.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return end

    return start


def artifact(store: LocalStore, job_id: str, attempt: int) -> Path:
    return store.folder(artifact_prefix(job_id, attempt))


def test_a_job_prunes_reports_and_leaves_a_model_that_loads(
    jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore
) -> None:
    job_id = jobs.submit(body)
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    job = jobs.job(job_id)
    assert job.metrics is not None
    assert job.metrics["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.01)
    with transaction(jobs.sessions) as session:
        report = service.get_report(session, jobs.team, job_id)
    assert len(report["layers"]) == 7 * LAYERS
    assert report["verification"]["maximum_difference"] <= report["verification"]["tolerance"]
    assert report["metrics"]["latency"]["dense_ms"] > 0 and any("No speed-up" in note for note in report["notes"])
    folder = artifact(store, job_id, 1)
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    zeros = sum(int((module.weight == 0).sum()) for module in model.modules() if isinstance(module, torch.nn.Linear))
    assert zeros >= job.metrics["parameters"]["dense"] - job.metrics["parameters"]["nonzero"] > 0
    figures = {name: report["estimate"][name] for name in ("peak_memory_bytes", "disk_bytes", "seconds")}
    assert all(figure["ratio"] == figure["actual"] / figure["estimated"] for figure in figures.values())
    assert 0.3 < figures["peak_memory_bytes"]["ratio"] < 3, "a formula that far off refuses jobs that fit"
    again = jobs.submit({**body, "model": f"job:{job_id}", "method": "magnitude", "sparsity": 0.7})
    assert work().result(120) == "succeeded", jobs.job(again).error


def test_a_structured_job_leaves_a_smaller_model_that_is_one_for_another_job(
    jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore
) -> None:
    job_id = jobs.submit({**body, "method": "llm-pruner", "sparsity": 0.2})
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    job = jobs.job(job_id)
    assert job.pattern == "structured" and job.metrics is not None
    figures = job.metrics
    model = AutoModelForCausalLM.from_pretrained(artifact(store, job_id, 1))
    assert model.num_parameters() == figures["parameters"]["nonzero"] < figures["parameters"]["dense"]
    assert figures["bytes"]["artifact"] < figures["bytes"]["dense"]
    assert figures["sparsity"]["model"] == pytest.approx(0.2, abs=0.1)
    with transaction(jobs.sessions) as session:
        report = service.get_report(session, jobs.team, job_id)
    assert {row["kind"] for row in report["layers"]} == {"heads", "channels"}
    assert not any("No speed-up" in note for note in report["notes"])
    again = jobs.submit({**body, "model": f"job:{job_id}", "method": "magnitude", "sparsity": 0.5})
    assert work().result(120) == "succeeded", jobs.job(again).error


@pytest.mark.parametrize(
    "change",
    [
        {"method": "llm-pruner", "target": {"parameters": 40_000}},
        {"method": "depth", "parameters": {"criterion": "angular"}, "target": {"latency_ratio": 0.6}},
    ],
    ids=["parameters", "latency"],
)
def test_a_job_with_a_target_ends_as_its_report_says(
    change: dict[str, Any], jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore
) -> None:
    job_id = jobs.submit(body | {"sparsity": None} | change)
    end = work().result(120)
    job = jobs.job(job_id)
    (kind, asked) = next(iter(change["target"].items()))
    metrics = {event.data["name"] for event in jobs.events(job_id) if event.type == "metric"}
    if kind == "latency_ratio":
        assert "latency_ratio" in metrics
        if job.error is not None and job.error.code != "gate_missed":  # a busy machine may keep it from being told
            assert job.error.code in ("latency_too_noisy", "target_unreachable") and job.metrics is None
            return
        assert "target_sparsity" in metrics
    with transaction(jobs.sessions) as session:
        report = service.get_report(session, jobs.team, job_id)
    target = report["target"]
    assert job.metrics is not None and target.items() >= job.metrics["target"].items()
    assert (target["kind"], target["asked"]) == (kind, asked)
    assert target["met"] == (target["reached"] <= asked * (1 + target["spread"])) == (end == "succeeded"), job.error
    model = AutoModelForCausalLM.from_pretrained(artifact(store, job_id, 1))
    card = (artifact(store, job_id, 1) / "README.md").read_text()
    assert "- Target: " in card and "reached" in card
    if kind == "parameters":
        assert target["met"] and target["reached"] == model.num_parameters() <= asked
    else:
        assert target["reached"] == report["metrics"]["latency"]["pruned_ms"] / report["metrics"]["latency"]["dense_ms"]
        kept = model.config.num_hidden_layers
        assert target["sparsity"] == target["search"]["sparsity"] and 0 < kept < LAYERS


def test_layers_of_different_shapes_are_verified_as_users_load_them_and_are_a_model_for_another_job(
    jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore, tmp_path: Path
) -> None:
    asked = {"method": "llm-pruner", "sparsity": 0.2, "parameters": {"protected_first": 1, "protected_last": 1}}
    job_id = jobs.submit({**body, **asked, "output": {"layout": "per_layer"}})
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    with transaction(jobs.sessions) as session:
        report = service.get_report(session, jobs.team, job_id)
    assert report["verification"]["trust_remote_code"] and report["engine"]["protected_layers"] == [0, LAYERS - 1]
    assert report["artifact"]["layout"] == "per_layer"
    assert any("trust_remote_code=True" in note for note in report["notes"])
    folder = artifact(store, job_id, 1)
    assert 'from_pretrained("path/to/this/folder", trust_remote_code=True)' in (folder / "README.md").read_text()
    channels = [row["after"] for row in report["layers"] if row["kind"] == "channels"]
    assert channels[0] == channels[-1] == 48 > channels[1]
    packed = {**body, "model": f"job:{job_id}", "output": {"format": "packed"}}
    again = jobs.submit(packed)
    assert work().result(120) == "succeeded", jobs.job(again).error
    job = jobs.job(again)
    assert job.output.layout == "per_layer"
    third = jobs.submit({
        **body, **asked, "sparsity": 0.05, "model": f"job:{again}", "output": {"layout": "per_layer"},
        "calibration": {"dataset": "self", "samples": 4, "sequence_length": 16},
        "recovery": {"method": "distill", "steps": 2, "batch_size": 2},
        "evaluation": {"prompts": ["w4 w5", "<b>w6</b> ```"], "prompt_tokens": 6},
    })  # fmt: skip
    assert work().result(120) == "succeeded", jobs.job(third).error
    assert jobs.job(third).parameters["protected_last"] == 1
    shutil.copytree(artifact(store, again, 1), tmp_path / "unpacked")
    unpack_folder(tmp_path / "unpacked")
    _wrote_side_by_side(jobs, third, {"dense": tmp_path / "unpacked", "pruned": artifact(store, third, 1)})


def _wrote_side_by_side(jobs: Queue, job_id: str, folders: dict[str, Path]) -> None:
    """What the job's models wrote after its prompts is what these folders' models write."""
    asked = jobs.job(job_id).evaluation
    models = {name: open_model(folder, own_artifact=True) for name, folder in folders.items()}
    written = generate_side_by_side(models, asked.prompts, tokens=asked.prompt_tokens, device=torch.device("cpu"))
    with transaction(jobs.sessions) as session:
        report = service.get_report(session, jobs.team, job_id)
    assert report["generations"] == written["generations"] and all(row["pruned"] for row in written["generations"])
    assert "generate" in report["peak_memory_of_other_processes"]
    card = (folders["pruned"] / "README.md").read_text()
    assert all(text in card for row in written["generations"] for text in row.values())


def test_a_packed_artifact_unpacks_to_the_dense_one_and_is_a_model_for_another_job(
    jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore, tmp_path: Path
) -> None:
    ends = {}
    for form in ("dense", "packed"):
        ends[form] = jobs.submit({**body, "output": {"format": form}})
        assert work().result(120) == "succeeded", jobs.job(ends[form]).error
    packed = tmp_path / "packed"
    shutil.copytree(artifact(store, ends["packed"], 1), packed)
    assert not (packed / "model.safetensors").exists()
    with transaction(jobs.sessions) as session:
        report = service.get_report(session, jobs.team, ends["packed"])
    metrics = jobs.job(ends["packed"]).metrics
    assert metrics is not None
    size = (packed / "model.packed.safetensors").stat().st_size
    assert metrics["bytes"]["packed"] == report["packed"]["bytes"] == size < report["packed"]["dense_bytes"]
    unpack_folder(packed)
    dense = artifact(store, ends["dense"], 1) / "model.safetensors"
    assert (packed / "model.safetensors").read_bytes() == dense.read_bytes()
    again = jobs.submit({**body, "model": f"job:{ends['packed']}", "sparsity": 0.7})
    assert work().result(120) == "succeeded", jobs.job(again).error


def test_killed_with_9_at_any_stage_the_next_attempt_yields_the_same_bytes(
    jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore
) -> None:
    killed = {stage: _killed_at(stage, jobs, body, work) for stage in ("open", "prune", "evaluate", "verify")}
    with transaction(jobs.sessions) as session:
        recipe = service.get_report(session, jobs.team, killed["verify"])["recipe"]
    undisturbed = jobs.submit(recipe)
    assert work().result(120) == "succeeded"
    expected = (artifact(store, undisturbed, 1) / "model.safetensors").read_bytes()
    for stage, job_id in killed.items():
        assert (artifact(store, job_id, 2) / "model.safetensors").read_bytes() == expected, stage
        if stage in ("evaluate", "verify"):
            assert any("continuing after block" in message for message in jobs.logs(job_id)), stage


def _killed_at(stage: str, jobs: Queue, body: dict[str, Any], work: Work) -> str:
    """A job whose runner was killed in a stage, and whose second attempt succeeded."""
    job_id = jobs.submit(body)
    end = work()

    def runner_in_stage() -> psutil.Process | None:
        job = jobs.job(job_id)
        for child in psutil.Process().children():
            if job.stage == stage and "worker.runner" in child.cmdline():
                return child
        return None

    os.kill(eventually(runner_in_stage, 60).pid, signal.SIGKILL)
    assert end.result(60) == "queued", stage
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    assert jobs.job(job_id).attempt == 2
    return job_id


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (
            {"calibration": {"dataset": "words", "samples": 500, "sequence_length": 8}},
            "too_little_text",
            "500 × 8 = 4000",
        ),
        ({"evaluation": {"datasets": ["words"], "samples": 300, "sequence_length": 8}}, "too_little_text", "300 × 8"),
        ({"gates": {"max_perplexity_ratio": 0.5}}, "gate_missed", "the gate allows 0.5"),
    ],
)
def test_what_cannot_be_done_fails_once_and_says_why(
    change: dict[str, Any], code: str, words: str, jobs: Queue, body: dict[str, Any], work: Work
) -> None:
    job_id = jobs.submit({**body, **change})
    assert work().result(120) == "failed"
    job = jobs.job(job_id)
    assert job.error is not None and job.attempt == 1
    assert job.error.code == code and words in job.error.message
    assert bool(code == "gate_missed") == bool(job.metrics)


def test_weights_that_are_not_finite_are_named(
    jobs: Queue, body: dict[str, Any], work: Work, settings: Settings, sessions: sessionmaker[Session], team: str
) -> None:
    folder = write_model(settings.models_root / "broken")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.4.mlp.up_proj.weight"][0, 0] = numpy.inf
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with transaction(sessions) as session:
        register_model(session, team, ModelBody(name="broken", path=str(folder.resolve())), settings)
    job_id = jobs.submit({**body, "model": "broken"})
    assert work().result(120) == "failed"
    error = jobs.job(job_id).error
    assert error is not None and error.code == "not_finite_weights" and "model.layers.4.mlp.up_proj" in error.message
