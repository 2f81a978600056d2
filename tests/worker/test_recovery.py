"""Jobs that train after pruning, with the real runner: figures before and after, killed and drained in the middle."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy.orm import Session, sessionmaker

from core.artifacts.store import LocalStore, artifact_prefix
from core.database import transaction
from core.jobs import queue, service
from core.settings import Settings
from tests.worker.conftest import Queue, eventually
from tests.worker.test_real_runner import register_layers
from worker.supervisor import Supervisor

pytestmark = pytest.mark.timeout(300)
RECOVERY = {"method": "lora", "steps": 12, "batch_size": 4, "learning_rate": 0.01, "checkpoint_every": 3}
LONG = RECOVERY | {"steps": 100}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"threads": 1, "device": "cpu", "drain_seconds": 20.0})


@pytest.fixture
def body(sessions: sessionmaker[Session], settings: Settings, team: str) -> dict[str, Any]:
    layered = register_layers(sessions, settings, team, layers=2)
    return layered | {"method": "magnitude", "sparsity": None, "pattern": "2:4", "recovery": RECOVERY}


Work = Callable[..., "Future[str]"]


@pytest.fixture
def work(settings: Settings, sessions: sessionmaker[Session], store: LocalStore) -> Work:
    """Claim once and run what was claimed, in a thread, with the product's own runner; `stop` drains it."""

    def start(stop: threading.Event | None = None) -> "Future[str]":
        end: Future[str] = Future()

        def run() -> None:
            try:
                with transaction(sessions) as session:
                    claim = queue.claim(session, queue="default", worker_id="a thread", lease_seconds=60)
                assert claim is not None
                end.set_result(Supervisor(settings, sessions, store, stop=stop or threading.Event()).run(claim))
            except BaseException as error:
                end.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return end

    return start


def weights(store: LocalStore, jobs: Queue, job_id: str) -> dict[str, torch.Tensor]:
    return load_file(store.folder(artifact_prefix(job_id, jobs.job(job_id).attempt)) / "model.safetensors")


def report_of(jobs: Queue, job_id: str) -> dict[str, Any]:
    with transaction(jobs.sessions) as session:
        return service.get_report(session, jobs.team, job_id)


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


def test_before_and_after_of_a_job_that_recovers_and_of_one_that_only_recovers(
    jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore
) -> None:
    plain = jobs.submit({**body, "recovery": None})
    assert work().result(120) == "succeeded", jobs.job(plain).error
    job_id = jobs.submit(body)
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    job, report = jobs.job(job_id), report_of(jobs, job_id)
    assert job.recovery is not None and job.recovery.lora is not None and job.recovery.lora.r == 8
    before, after = (jobs.job(each).metrics for each in (plain, job_id))
    assert before is not None and after is not None
    figures = after["perplexity"]["words"]
    assert figures["before_recovery"] == before["perplexity"]["words"]["pruned"] != figures["pruned"]
    assert figures["ratio"] == figures["pruned"] / figures["dense"]
    assert after["sparsity"] == before["sparsity"] and after["parameters"] == before["parameters"]
    assert_zeros_kept(weights(store, jobs, plain), weights(store, jobs, job_id))
    recovery = report["recovery"]
    assert recovery["sparsity"] == {"before": 0.5, "after": 0.5} and recovery["resumed_from_step"] == 0
    assert [step for step, _ in recovery["loss"]] == list(range(1, 13)) == losses(jobs, job_id)
    assert recovery["trained"] == "adapters" and recovery["peak_memory"]["resident"] > 0
    assert {"peft", "accelerate"} <= recovery["versions"].keys() and recovery["tokens"] == 12 * 4 * 32
    assert report["verification"]["maximum_difference"] <= report["verification"]["tolerance"]
    stages = [event.data["stage"] for event in jobs.events(job_id) if event.type == "stage"]
    assert stages == ["open", "prune", "recover", "evaluate", "verify", "store"]
    assert "before recovery" in (store.folder(artifact_prefix(job_id, 1)) / "README.md").read_text()
    again = jobs.submit(report["recipe"])
    assert jobs.job(again).recovery == job.recovery, "the recipe reproduces the run"
    with transaction(jobs.sessions) as session:
        queue.request_cancel(session, again)
    check_recover(jobs, body, work, store, plain)


def check_recover(jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore, pruned: str) -> None:
    """`recover` trains the artifact of a job and keeps its zeros."""
    training = {
        "model": f"job:{pruned}", "method": "recover", "evaluation": body["evaluation"],
        "recovery": {"method": "distill", "lora": None, "teacher": "layered", "resample_every": 2,
                     "stages": [{"datasets": ["words"], "steps": 4}, {"datasets": ["words"], "steps": 2}],
                     "batch_size": 4, "sequence_length": 32, "learning_rate": 0.01},
    }  # fmt: skip
    job_id = jobs.submit(training)
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    job, report = jobs.job(job_id), report_of(jobs, job_id)
    assert job.sparsity is None and job.metrics is not None
    figures = job.metrics["perplexity"]["words"]
    assert figures["dense"] == figures["before_recovery"] and figures["pruned"] != figures["dense"]
    assert job.metrics["sparsity"]["prunable"] == 0.5
    assert_zeros_kept(weights(store, jobs, pruned), weights(store, jobs, job_id))
    assert report["recovery"]["teacher"]["name"] == "layered" and report["recovery"]["trained"] == "every parameter"
    rounds, texts = report["recovery"]["rounds"], report["recovery"]["texts"]
    assert report["texts"]["calibration"] is None and [text["name"] for text in texts] == ["words", "words"]
    assert {each["stage"] for each in rounds} == {0, 1} and rounds[0]["degradation"].keys() == {"words"}


def test_killed_drained_and_taken_up_again_it_ends_with_the_same_bytes(
    jobs: Queue, body: dict[str, Any], work: Work, store: LocalStore
) -> None:
    job_id = jobs.submit({**body, "recovery": LONG})
    end = work()
    eventually(lambda: len(losses(jobs, job_id)) > 20, 60)
    os.kill(runner(), signal.SIGKILL)
    assert end.result(60) == "queued"
    stop = threading.Event()
    end = work(stop)
    eventually(lambda: len(losses(jobs, job_id, attempt=2)) > 10, 60)
    stop.set()
    assert end.result(60) == "queued"
    told = losses(jobs, job_id, attempt=2)
    assert told[0] > 15, "it went on where the newest whole checkpoint was"
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    assert jobs.job(job_id).attempt == 3
    assert sum(message.startswith("continuing after step") for message in jobs.logs(job_id)) == 2
    report = report_of(jobs, job_id)
    assert report["recovery"]["resumed_from_step"] >= told[-1], "a drain saves the step it is in"
    undisturbed = jobs.submit(report["recipe"])
    assert work().result(120) == "succeeded"
    first, second = weights(store, jobs, job_id), weights(store, jobs, undisturbed)
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert report["recovery"]["loss"] == report_of(jobs, undisturbed)["recovery"]["loss"]


def runner() -> int:
    return next(child.pid for child in psutil.Process().children() if "worker.runner" in child.cmdline())


def test_too_little_text_fails_once_and_says_what_is_missing(jobs: Queue, body: dict[str, Any], work: Work) -> None:
    job_id = jobs.submit({**body, "recovery": RECOVERY | {"samples": 500, "sequence_length": 8}})
    assert work().result(120) == "failed"
    error = jobs.job(job_id).error
    assert error is not None and jobs.job(job_id).attempt == 1
    assert (error.code, error.param) == ("too_little_text", "recovery.samples") and "500 × 8" in error.message
