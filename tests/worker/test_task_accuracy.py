"""Jobs that measure zero-shot accuracy, with the real runner, on questions in the worker's home."""

import math
from pathlib import Path
from typing import Any

import pytest

from core.artifacts.store import LocalStore, artifact_prefix
from core.database import transaction
from core.jobs import service
from core.registry.folders import file_hash
from core.settings import Settings
from secateur.types import Metrics
from tests.task_questions import write_questions
from tests.worker.conftest import Queue
from tests.worker.test_real_runner import Work, body, settings, work

__all__ = ["body", "settings", "work"]

pytestmark = pytest.mark.timeout(300)


def test_dense_and_pruned_answer_the_questions_of_the_home(
    jobs: Queue, body: dict[str, Any], work: Work, settings: Settings, store: LocalStore
) -> None:
    files = {task: write_questions(settings.local_tasks, task, 20) for task in ("winogrande", "arc_easy")}
    asked = {**body, "sparsity": 0.9, "evaluation": {"tasks": list(files), "task_limit": 16}}
    job_id = jobs.submit(asked)
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    metrics = jobs.job(job_id).metrics or {}
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
    with transaction(jobs.sessions) as session:
        report = service.get_report(session, jobs.team, job_id)
    assert report["tasks"]["limit"] == 16 and report["versions"]["lm_eval"]
    assert report["tasks"]["questions"] == {
        task: {"kind": "local", "split": "validation", "sha256": file_hash(file)} for task, file in files.items()
    }
    assert set(report["tasks"]["measured"]["pruned"]["arc_easy"]) >= {"acc", "acc_norm", "version"}
    assert [note for note in report["notes"] if "arc_easy" in note and "papers report test" in note]
    assert {"tasks_dense", "tasks_pruned"} <= set(report["peak_memory_of_other_processes"])
    card = (Path(store.folder(artifact_prefix(job_id, 1))) / "README.md").read_text()
    first = metrics["tasks"]["arc_easy"]
    assert f"arc\\_easy (acc\\_norm, 16 questions) | {first['dense']:.2%} ± {first['dense_stderr']:.2%}" in card
    assert "mean of the 2 tasks" in card
    assert Metrics.model_validate(metrics).tasks["arc_easy"].pruned == first["pruned"]
    progress = [event.data["progress"] for event in jobs.events(job_id) if event.type == "progress"]
    assert progress == sorted(progress) and any(0.92 < done <= 0.95 for done in progress)


def test_a_model_answers_the_same_questions_once(
    jobs: Queue, body: dict[str, Any], work: Work, settings: Settings
) -> None:
    write_questions(settings.local_tasks, "winogrande", 20)
    asked = {**body, "method": "magnitude", "sparsity": 0.9, "calibration": None}
    asked["evaluation"] = {"tasks": ["winogrande"], "task_limit": 16}
    first = jobs.submit(asked)
    assert work().result(120) == "succeeded", jobs.job(first).error
    second = jobs.submit({**asked, "model": f"job:{first}", "sparsity": 0.95})
    assert work().result(120) == "succeeded", jobs.job(second).error
    before, after = ((jobs.job(job).metrics or {})["tasks"]["winogrande"] for job in (first, second))
    assert (after["dense"], after["dense_stderr"]) == (before["pruned"], before["pruned_stderr"])
    with transaction(jobs.sessions) as session:
        report = service.get_report(session, jobs.team, second)
    assert "tasks_dense" not in report["peak_memory_of_other_processes"]
    assert [note for note in report["notes"] if "measured by an earlier job" in note]


def test_a_worker_without_the_questions_fails_the_job_and_says_which(
    jobs: Queue, body: dict[str, Any], work: Work, settings: Settings
) -> None:
    asked = {**body, "evaluation": {"tasks": ["piqa"]}}
    missing = jobs.submit(asked)
    assert work().result(120) == "failed"
    error = jobs.job(missing).error
    assert error is not None and (error.code, error.param) == ("unusable_dataset", "evaluation.tasks")
    assert "piqa" in error.message
