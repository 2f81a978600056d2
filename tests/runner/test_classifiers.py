"""Jobs on image classifiers with the real runner: a network trained by a job, pruned by others, killed, refused."""

import hashlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageClassification

from core.database import transaction
from core.engine.datasets.image_codec import write_images
from core.engine.models.classifier import load_classifier, open_classifier
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.sources_spec import NewNetworkSpec
from core.progress import Progress
from core.service.registry.schemas import DatasetBody
from core.service.registry.service import read_dataset, register_dataset
from secateur_wire.errors import SecateurError
from secateur_wire.weights.packed import unpack_folder
from tests.runner.conftest import Finish, Work, artifact, give_model, shown_ways
from tests.shown_ways import run_here
from tests.worker.conftest import Queue, eventually, runner_of
from worker.samples.images import digits

STEPS = 200


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    """A job that trains a small untrained VGG on real digits."""
    settings, team = jobs.settings, jobs.team
    settings.models_root.mkdir(parents=True)
    settings.datasets_root.mkdir(parents=True)
    folder = settings.models_root / "vgg"
    spec = NewNetworkSpec(
        network="vgg", classes=10, channels=1, image_size=8, hidden_sizes=[8, 16], seed=0, target=folder
    )
    run_stage(spec, Progress(), lambda: 0)
    with transaction(jobs.sessions) as session:
        give_model(jobs, "vgg", folder)
        for name, images in digits().items():
            file = settings.datasets_root / f"{name}.parquet"
            write_images(file, images, [str(digit) for digit in range(10)])
            asked = DatasetBody(name=name, path=str(file.resolve()), format="image_parquet")
            register_dataset(session, team, read_dataset(asked, settings))
    return {
        "model": "vgg",
        "method": "recover",
        "recovery": {
            "method": "finetune", "dataset": "train", "steps": STEPS, "batch_size": 64, "learning_rate": 0.01,
            "checkpoint_every": 10,
        },
        "evaluation": {"datasets": ["test"]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(jobs: Queue, body: dict[str, Any], work: Work) -> str:
    """A finished job that was killed while it trained."""
    job_id = jobs.submit(body)
    end = work()
    eventually(lambda: any(event.type == "metric" and event.data["step"] > 40 for event in jobs.events(job_id)))
    training = runner_of(os.getpid())
    assert training is not None
    os.kill(training, signal.SIGKILL)
    assert end.result(60) == "queued", jobs.job(job_id).error
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    return job_id


@pytest.fixture(scope="module")
def pruning(trained: str) -> dict[str, Any]:
    return {
        "model": f"job:{trained}", "method": "magnitude", "sparsity": 0.5, "evaluation": {"datasets": ["test"]},
        "gates": {"max_accuracy_drop": 0.5},
    }  # fmt: skip


@pytest.fixture(scope="module")
def pruned(pruning: dict[str, Any], finish: Finish) -> str:
    """A finished job that pruned what the other had trained."""
    return finish(pruning)


def test_a_job_killed_while_it_trains_goes_on_after_its_last_step(jobs: Queue, trained: str) -> None:
    steps = [line for line in jobs.logs(trained) if "continuing after step" in line]
    assert len(steps) == 1 and int(steps[0].split("step ")[1].split()[0]) >= 40, steps
    metrics = jobs.job(trained).metrics
    assert metrics is not None and metrics["accuracy"]["test"]["pruned"] > 0.8


def test_a_network_trained_by_a_job_is_pruned_by_others_and_what_they_leave_runs_anywhere(
    jobs: Queue,
    trained: str,
    pruned: str,
    finish: Finish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = jobs.job(trained).metrics
    assert metrics is not None
    learnt = metrics["accuracy"]["test"]
    assert learnt["dense"] < 0.3 and learnt["pruned"] > 0.8 and learnt["samples"] == 360

    metrics, report = jobs.job(pruned).metrics, jobs.report(pruned)
    assert metrics is not None and metrics["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.01)
    assert metrics["accuracy"]["test"]["dense"] == learnt["pruned"]
    assert metrics["flops"]["dense"] == metrics["flops"]["pruned"] > 0
    (half,) = metrics["alternatives"]
    assert (half["name"], half["bytes"]) == ("dense in float16", 2 * metrics["parameters"]["dense"])
    assert 0 < half["kl"] < 1e-3 and half["top_1"] > 0.95 and half["output"] == {}
    assert report["verification"]["maximum_difference"] <= report["verification"]["tolerance"]
    assert report["verification"]["onnx"]["maximum_difference"] <= report["verification"]["tolerance"]
    assert report["artifact"]["passes"]["image_shape"] == [1, 8, 8], "of an artifact it is known what its passes take"
    names = jobs.artifact_names(pruned)
    assert {"config.json", "model.onnx", "model.safetensors", "README.md", "secateur.json"} <= names
    folder = artifact(jobs, pruned)
    opened = AutoModelForImageClassification.from_pretrained(folder)
    ours = load_classifier(open_classifier(folder))
    images_NCHW = torch.randn(3, 1, 8, 8)
    assert torch.equal(opened(pixel_values=images_NCHW).logits, ours(pixel_values=images_NCHW).logits)

    (way,) = shown_ways(jobs, pruned)
    assert way.runtime == "ONNX Runtime", "what is not of transformers itself is not opened by it"
    assert re.fullmatch(r"\[\d\]\n", run_here(way, folder, tmp_path, monkeypatch))

    filters = {
        "model": f"job:{trained}", "method": "filter-l1", "sparsity": 0.4, "evaluation": {"datasets": ["test"]},
        "calibration": {"dataset": "train", "samples": 512},
        "recovery": {"method": "distill", "steps": 40, "batch_size": 64, "label_weight": 0.5},
    }  # fmt: skip
    thinner = finish(filters)
    metrics, report = jobs.job(thinner).metrics, jobs.report(thinner)
    assert metrics is not None
    left = open_classifier(artifact(jobs, thinner))
    assert left.description.reshaped and left.description.parameters == metrics["parameters"]["nonzero"]
    assert metrics["sparsity"]["model"] == pytest.approx(0.4, abs=0.08)
    assert metrics["flops"]["pruned"] < metrics["flops"]["dense"]
    assert metrics["accuracy"]["test"]["pruned"] > metrics["accuracy"]["test"]["before_recovery"]
    assert not report["verification"]["from_pretrained"]
    rebuilt = load_classifier(left)
    assert rebuilt(pixel_values=torch.zeros(1, 1, 8, 8)).logits.shape == (1, 10)


def test_rates_come_from_the_classifiers_own_curves_and_its_linear_layers_are_stored_by_a_hash(
    jobs: Queue, body: dict[str, Any], finish: Finish, tmp_path: Path
) -> None:
    evaluation = {"datasets": ["test"], "samples": 40}
    measuring = {
        "model": body["model"], "method": "sensitivity", "evaluation": evaluation, "parameters": {"rates": [0.5, 0.9]}
    }  # fmt: skip
    measured = finish(measuring)
    found = jobs.report(measured)["sensitivity"]
    assert len(found["curves"]) > 2 and all(len(curve["points"]) == 2 for curve in found["curves"])
    assert jobs.artifact_names(measured) == {"README.md", "secateur.json", "sensitivity.json", "sensitivity.svg"}

    pruned = finish(
        {
            "model": body["model"], "method": "magnitude", "sparsity": 0.6, "evaluation": evaluation,
            "parameters": {"allocation": f"job:{measured}"}, "output": {"format": "hashed", "compression": 0.25},
        }
    )  # fmt: skip
    job, report = jobs.job(pruned), jobs.report(pruned)
    weights = [curve["weights"] for curve in found["curves"]]
    rates = job.parameters["allocation"]
    removed = sum(rate * size for rate, size in zip(rates, weights, strict=True))
    assert removed / sum(weights) == pytest.approx(0.6, abs=1e-9) and len(set(rates)) > 1
    hashed = report["hashed"]
    for row in hashed["layers"]:
        assert row["buckets"] == round(0.25 * row["weights"]) and row["survivors"] < row["weights"]
        assert 0 <= row["collision_rate"] <= 1 and 0 < row["relative_error"] < 1
    assert hashed["layers"]
    assert job.metrics is not None and job.metrics["bytes"]["hashed"] == hashed["bytes"]
    assert job.metrics["sparsity"]["prunable"] == pytest.approx(0.6, abs=0.01)
    folder = shutil.copytree(artifact(jobs, pruned), tmp_path / "unpacked")
    assert not (folder / "model.safetensors").exists()
    (restored,) = unpack_folder(folder)
    assert hashlib.sha256(restored.read_bytes()).hexdigest() == hashed["restores"]["model.safetensors"]["sha256"]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"method": "bonsai", "sparsity": 0.2}, "method", "no method for image classifiers"),
        ({"gates": {"max_accuracy_drop": 0.1}, "evaluation": {}}, "gates.max_accuracy_drop", "images"),
        ({"recovery": {"method": "lora", "dataset": "train"}}, "recovery.method", "finetune or distill"),
        ({"method": "magnitude", "sparsity": 0.5, "pattern": "2:4", "recovery": None}, "pattern", "body.0 has 1 input"),
        ({"evaluation": {"datasets": ["test"], "samples": 361}}, "evaluation.samples", "360"),
    ],
)
def test_what_a_classifier_cannot_have_is_refused_by_name(
    jobs: Queue, body: dict[str, Any], change: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(SecateurError) as caught:
        jobs.submit(body | change)
    assert caught.value.param == param and words in caught.value.message
