"""Jobs that measure zero-shot accuracy, with the real runner, on questions in the worker's home."""

import math
from typing import Any

import pytest

from core.service.sources.folders import file_hash
from secateur_wire.metrics import Metrics
from tests.runner.conftest import Finish, artifact
from tests.runner.models import register_layers
from tests.task_questions import write_questions
from tests.worker.conftest import Queue

TASKS = ("winogrande", "arc_easy")


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    return register_layers(jobs.sessions, jobs.settings, jobs.team, layers=2)


@pytest.fixture(scope="module")
def answered(jobs: Queue, body: dict[str, Any], finish: Finish) -> str:
    """A finished job that measured the dense and the pruned model."""
    for task in TASKS:
        write_questions(jobs.settings.local_tasks, task, 20)
    return finish({**body, "sparsity": 0.9, "evaluation": {"tasks": list(TASKS), "task_limit": 16}})


def test_dense_and_pruned_answer_the_questions_of_the_home(jobs: Queue, answered: str) -> None:
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
    assert set(report["tasks"]["measured"]["pruned"]["arc_easy"]) >= {"acc", "acc_norm", "version"}
    assert [note for note in report["notes"] if "arc_easy" in note and "papers report test" in note]
    assert {"tasks_dense", "tasks_pruned"} <= set(report["peak_memory_of_other_processes"])
    card = (artifact(jobs, answered) / "README.md").read_text()
    first = metrics["tasks"]["arc_easy"]
    assert f"arc\\_easy (acc\\_norm, 16 questions) | {first['dense']:.2%} ± {first['dense_stderr']:.2%}" in card
    assert "mean of the 2 tasks" in card
    assert Metrics.model_validate(metrics).tasks["arc_easy"].pruned == first["pruned"]
    progress = [event.data["progress"] for event in jobs.events(answered) if event.type == "progress"]
    assert progress == sorted(progress) and any(0.92 < done <= 0.95 for done in progress)
