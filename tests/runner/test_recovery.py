"""Jobs that train after pruning, with the real runner: figures before and after, killed and drained in the middle; and
jobs that measure zero-shot accuracy, on questions in the worker's home.
"""

import math
import os
import signal
import threading
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.pipeline.stages.registry import ORDER
from core.service.sources.folders import file_hash
from tests.runner.conftest import Finish, Work, artifact
from tests.runner.models import register_layers
from tests.task_questions import write_questions
from tests.worker.conftest import Queue, eventually, runner_of

TASKS = ("winogrande", "arc_easy")
STEPS = 100
RECOVERY = {"method": "lora", "steps": STEPS, "batch_size": 4, "learning_rate": 0.01, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    layered = register_layers(jobs.sessions, jobs.settings, jobs.team, layers=2)
    return layered | {"method": "magnitude", "sparsity": None, "pattern": "2:4", "recovery": RECOVERY}


@pytest.fixture(scope="module")
def plain(body: dict[str, Any], finish: Finish) -> str:
    """A finished job that pruned and did not train."""
    return finish({**body, "recovery": None})


@pytest.fixture(scope="module")
def recovered(body: dict[str, Any], finish: Finish) -> str:
    """A finished job that did both, undisturbed."""
    return finish(body)


def weights(jobs: Queue, job_id: str) -> dict[str, torch.Tensor]:
    return load_file(artifact(jobs, job_id) / "model.safetensors")


def losses(jobs: Queue, job_id: str, attempt: int = 1) -> list[int]:
    """Steps whose loss was told."""
    return [
        int(event.data["step"])
        for event in jobs.events(job_id)
        if event.type == "metric" and event.data["name"] == "recovery_loss" and event.attempt == attempt
    ]


def assert_zeros_kept(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    pruned = [name for name in before if "_proj" in name]
    assert len(pruned) == 7 * 2
    for name in pruned:
        assert int((before[name] == 0).sum()) == before[name].numel() // 2
        assert torch.equal(before[name] == 0, after[name] == 0), name
        assert not torch.equal(before[name], after[name]), name


def test_before_and_after_of_a_job_that_recovers(jobs: Queue, plain: str, recovered: str) -> None:
    report = jobs.report(recovered)
    before, after = (jobs.job(each).metrics for each in (plain, recovered))
    assert before is not None and after is not None
    figures = after["perplexity"]["words"]
    assert figures["before_recovery"] == before["perplexity"]["words"]["pruned"] != figures["pruned"]
    assert figures["ratio"] == figures["pruned"] / figures["dense"]
    assert after["sparsity"] == before["sparsity"] and after["parameters"] == before["parameters"]
    assert_zeros_kept(weights(jobs, plain), weights(jobs, recovered))
    recovery = report["recovery"]
    assert recovery["sparsity"] == {"before": 0.5, "after": 0.5} and recovery["resumed_from_step"] == 0
    assert [step for step, _ in recovery["loss"]] == list(range(1, STEPS + 1)) == losses(jobs, recovered)
    assert recovery["trained"] == "adapters" and recovery["tokens"] == STEPS * 4 * 32
    assert report["verification"]["maximum_difference"] <= report["verification"]["tolerance"]


def test_killed_drained_and_taken_up_again_it_ends_with_the_same_bytes(jobs: Queue, recovered: str, work: Work) -> None:
    job_id = jobs.submit(jobs.report(recovered)["recipe"])
    assert jobs.job(job_id).recovery == jobs.job(recovered).recovery, "the recipe reproduces the run"
    end = work()
    eventually(lambda: len(losses(jobs, job_id)) > 20)
    training = runner_of(os.getpid())
    assert training is not None
    os.kill(training, signal.SIGKILL)
    assert end.result(60) == "queued"
    stop = threading.Event()
    end = work(stop)
    eventually(lambda: len(losses(jobs, job_id, attempt=2)) > 10)
    stop.set()
    assert end.result(60) == "queued"
    told = losses(jobs, job_id, attempt=2)
    assert told[0] > 15, "it went on where the newest whole checkpoint was"
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    assert jobs.job(job_id).attempt == 3
    assert sum(message.startswith("continuing after step") for message in jobs.logs(job_id)) == 2
    report = jobs.report(job_id)
    assert report["recovery"]["resumed_from_step"] >= told[-1], "a drain saves the step it is in"
    first, second = weights(jobs, job_id), weights(jobs, recovered)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in second)
    assert report["recovery"]["loss"] == jobs.report(recovered)["recovery"]["loss"]


def test_dense_and_pruned_answer_the_questions_of_the_home(jobs: Queue, body: dict[str, Any], finish: Finish) -> None:
    for task in TASKS:
        write_questions(jobs.settings.local_tasks, task, 20)
    sparse = {"pattern": "unstructured", "sparsity": 0.9, "recovery": None}
    answered = finish({**body, **sparse, "evaluation": {"tasks": list(TASKS), "task_limit": 16}})
    metrics = jobs.job(answered).metrics or {}
    assert {name: figures["metric"] for name, figures in metrics["tasks"].items()} == {
        "winogrande": "acc",
        "arc_easy": "acc_norm",
    }
    for figures in metrics["tasks"].values():
        assert figures["samples"] == 16
        for model in ("dense", "pruned"):
            share = figures[model]
            assert figures[f"{model}_stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 15))
    for model in ("dense", "pruned"):
        shares = [figures[model] for figures in metrics["tasks"].values()]
        assert metrics["task_mean"][model] == pytest.approx(sum(shares) / 2)
    report = jobs.report(answered)
    assert report["tasks"]["limit"] == 16 and report["versions"]["lm_eval"]
    assert report["tasks"]["questions"] == {
        task: {
            "kind": "local",
            "split": "validation",
            "sha256": file_hash(jobs.settings.local_tasks / task / "validation.jsonl"),
        }
        for task in TASKS
    }
    assert [note for note in report["notes"] if "arc_easy" in note and "papers report test" in note]
    card = (artifact(jobs, answered) / "README.md").read_text()
    first = metrics["tasks"]["arc_easy"]
    assert f"arc\\_easy (acc\\_norm, 16 questions) | {first['dense']:.2%} ± {first['dense_stderr']:.2%}" in card
    assert "mean of the 2 tasks" in card
    progress = [event.data["progress"] for event in jobs.events(answered) if event.type == "progress"]
    stages = ("PruneModel", "MeasureModels", "AnswerTasks", "VerifyArtifact", "ExportWeights")
    works = {type(stage).__name__: work for stage, work in ORDER}
    end = sum(works[name] for name in stages[:3]) / sum(works[name] for name in stages)
    start = end - works["AnswerTasks"] / sum(works[name] for name in stages)
    assert progress == sorted(progress) and any(start < done < end for done in progress)
