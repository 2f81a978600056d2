"""A tiny language model pruned end to end, killed at each stage, refused where it cannot be used, swept."""

import contextlib
import math
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import HF_MODULES_CACHE

from core.database import transaction
from core.engine.checkpoints.weight_comparison import compare_weights
from core.engine.cuts import WorthTable
from core.pipeline.messages import Spec
from core.pipeline.stages.evaluation_spec import VerifyArtifact
from core.pipeline.stages.pruning_spec import PruneSpec
from core.pipeline.stages.stage import RunningJob
from core.service.jobs import queue
from core.service.jobs.states import STAGES
from tests.runner.conftest import Finish, Work, artifact, shown_ways
from tests.runner.models import LAYERS, register_layers
from tests.shown_ways import lay_out, run_in_shell
from tests.sweeps.conftest import Sweeps
from tests.worker.conftest import Queue, runner_of
from worker.cli.reproduce import copy_block
from worker.runner.client import run_task


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    return register_layers(jobs.sessions, jobs.settings, jobs.team)


@pytest.fixture(scope="module")
def dense(body: dict[str, Any], finish: Finish) -> str:
    """A finished job, undisturbed."""
    return finish(body)


def test_a_job_prunes_reports_and_leaves_a_model_that_loads(jobs: Queue, dense: str) -> None:
    job, report = jobs.job(dense), jobs.report(dense)
    assert job.metrics is not None
    assert job.metrics["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.01)
    assert len(report["layers"]) == 7 * LAYERS
    figures = job.metrics["perplexity"]["words"]
    bits = figures["bits_per_byte"]
    assert bits["tokens"] == 8 * 31 and 3 * bits["tokens"] < bits["bytes"] < 5 * bits["tokens"], "words such as w42"
    for model in ("dense", "pruned"):
        assert bits[model] == pytest.approx(math.log2(figures[model]) * bits["tokens"] / bits["bytes"])
    assert report["verification"]["maximum_difference"] <= report["verification"]["tolerance"]
    assert report["metrics"]["latency"]["dense_ms"] > 0 and any("No speed-up" in note for note in report["notes"])
    model = AutoModelForCausalLM.from_pretrained(artifact(jobs, dense))
    zeros = sum(int((module.weight == 0).sum()) for module in model.modules() if isinstance(module, torch.nn.Linear))
    assert zeros >= job.metrics["parameters"]["dense"] - job.metrics["parameters"]["nonzero"] > 0
    figures = {name: report["estimate"][name] for name in ("peak_memory_bytes", "disk_bytes", "seconds")}
    assert all(figure["ratio"] == figure["actual"] / figure["estimated"] for figure in figures.values())
    assert 0.3 < figures["peak_memory_bytes"]["ratio"] < 3, "a formula that far off refuses jobs that fit"


def test_one_block_is_compared_as_soon_as_it_is_pruned(jobs: Queue, dense: str, work: Work, tmp_path: Path) -> None:
    job_id = jobs.submit(jobs.report(dense)["recipe"])
    copy_block(jobs.settings.work_root / job_id, 1, tmp_path, lambda: True)
    assert not any(tmp_path.iterdir()), "it has not begun"
    end = work()
    copy_block(jobs.settings.work_root / job_id, 1, tmp_path, end.done)
    with transaction(jobs.sessions) as session:
        queue.request_cancel(session, job_id)
    assert end.result(120) == "cancelled", "nothing else of the job was waited for"
    compared = compare_weights(artifact(jobs, dense), tmp_path, is_part=True)
    assert compared.is_equal and compared.tensors == 9, "seven linear layers and two norms"


def test_a_job_with_a_limit_of_memory_chooses_each_layers_shape_and_keeps_what_they_are_worth(
    jobs: Queue, body: dict[str, Any], finish: Finish
) -> None:
    asked = 150_000
    more = {"method": "frontier", "pattern": "structured", "sparsity": None, "parameters": {"round_to": 2}}
    job_id = finish({**body, **more, "target": {"memory_bytes": asked}, "output": {"layout": "per_layer"}})
    job, report = jobs.job(job_id), jobs.report(job_id)
    assert job.metrics is not None
    target, sizes = report["target"], job.metrics["bytes"]
    assert target["met"] and target["reached"] == sizes["artifact"] + sizes["cache"] <= asked
    assert target["reached"] > 0.95 * asked and target["sparsity"] == job.metrics["sparsity"]["model"] > 0
    table = WorthTable.model_validate_json((artifact(jobs, job_id) / "worth.json").read_text())
    assert len(table.layers) == LAYERS and table.runs
    assert "bytes of tensors and cache" in (artifact(jobs, job_id) / "README.md").read_text()


def test_layers_of_different_shapes_are_verified_as_users_load_them_and_are_a_model_for_another_job(
    jobs: Queue, body: dict[str, Any], finish: Finish
) -> None:
    modules_of_users = Path(HF_MODULES_CACHE)
    before = sorted(modules_of_users.rglob("*"))
    asked = {"method": "llm-pruner", "sparsity": 0.2, "parameters": {"protected_first": 1, "protected_last": 1}}
    first = finish({**body, **asked, "output": {"layout": "per_layer"}})
    report = jobs.report(first)
    assert report["verification"]["trust_remote_code"] and report["engine"]["protected_layers"] == [0, LAYERS - 1]
    assert report["artifact"]["layout"] == "per_layer"
    assert sorted(modules_of_users.rglob("*")) == before, "the modelling file was imported from elsewhere"
    assert any("trust_remote_code=True" in note for note in report["notes"])
    card = (artifact(jobs, first) / "README.md").read_text()
    assert 'from_pretrained("path/to/this/folder", trust_remote_code=True)' in card
    channels = [row["after"] for row in report["layers"] if row["kind"] == "channels"]
    assert channels[0] == channels[-1] == 48 > channels[1]
    second = finish({**body, "model": f"job:{first}", "output": {"format": "packed"}})
    assert jobs.job(second).output.layout == "per_layer"


def test_a_packed_artifact_runs_as_its_page_says_unpacks_to_the_dense_one_and_is_a_model_for_another_job(
    jobs: Queue, body: dict[str, Any], dense: str, finish: Finish, tmp_path: Path
) -> None:
    job_id = finish({**body, "output": {"format": "packed"}})
    packed = tmp_path / "packed"
    shutil.copytree(artifact(jobs, job_id), packed)
    assert not (packed / "model.safetensors").exists()
    report, metrics = jobs.report(job_id), jobs.job(job_id).metrics
    assert metrics is not None
    size = (packed / "model.packed.safetensors").stat().st_size
    assert metrics["bytes"]["packed"] == report["packed"]["bytes"] == size < report["packed"]["dense_bytes"]
    (way,) = shown_ways(jobs, job_id)
    lay_out(way, packed, tmp_path)
    assert len(run_in_shell(way.commands, tmp_path).split()) > 5
    assert (packed / "model.safetensors").read_bytes() == (artifact(jobs, dense) / "model.safetensors").read_bytes()
    calibration = body["calibration"] | {"samples": 4, "generated": 3}
    again = finish(
        {**body, "model": f"job:{job_id}", "method": "frontier", "sparsity": 0.7, "calibration": calibration}
    )
    report = jobs.report(again)
    assert report["tokens"]["calibration"][0] == 7 and report["texts"]["generated"]["kind"] == "self"
    assert {row["refit"] for row in report["layers"]} == {0.5}


def test_killed_with_9_at_any_stage_the_next_attempt_goes_on_to_the_same_bytes(
    jobs: Queue, dense: str, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = jobs.submit(jobs.report(dense)["recipe"])
    stages = ("open", "prune", "evaluate", "verify")

    def run_and_kill(stage: str, spec: Spec, *, on_wait: Callable[[], None], **given: Any) -> dict[str, Any]:
        waits = count()
        killed = []

        def wait() -> None:
            on_wait()
            is_started = next(waits) > 0
            now = jobs.job(job_id).stage
            if not is_started or killed or now is None or STAGES.index(now) < STAGES.index(stage):
                return
            runner = runner_of(os.getpid())
            if runner is not None:  # else this task's has just ended: the next one's is killed
                with contextlib.suppress(ProcessLookupError):
                    os.kill(runner, signal.SIGKILL)
                    killed.append(runner)

        return run_task(spec, on_wait=wait, **given)

    for stage in stages:
        monkeypatch.setattr("worker.supervisor.attempt.run_task", partial(run_and_kill, stage))
        assert work().result(60) == "queued", stage
    monkeypatch.undo()
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    assert jobs.job(job_id).attempt == len(stages) + 1
    expected = (artifact(jobs, dense) / "model.safetensors").read_bytes()
    assert (artifact(jobs, job_id) / "model.safetensors").read_bytes() == expected
    went_on = [event.attempt for event in jobs.events(job_id) if "continuing after block" in str(event.data)]
    assert went_on[-2:] == [4, 5], "after a kill in evaluate and one in verify"


def test_killed_once_for_memory_a_task_begins_again_with_half_of_it(
    jobs: Queue, dense: str, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = jobs.submit(jobs.report(dense)["recipe"])
    killed, rooms = list[int](), list[int]()

    def run_and_kill(spec: PruneSpec, *, on_wait: Callable[[], None], **given: Any) -> dict[str, Any]:
        def wait() -> None:
            on_wait()
            runner = runner_of(os.getpid())
            if not killed and runner is not None and jobs.job(job_id).stage == "prune":
                killed.append(runner)
                os.kill(runner, signal.SIGKILL)

        rooms.append(spec.memory_bytes or 0)
        return run_task(spec, on_wait=wait, **given)

    monkeypatch.setattr("worker.supervisor.attempt.run_task", run_and_kill)
    monkeypatch.setattr("worker.runner.client.memory_kills", lambda: len(killed))  # as the kernel counts them
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    assert jobs.job(job_id).attempt == 1 and 0 < rooms[1] <= rooms[0] / 2
    assert any("begins again" in line for line in jobs.logs(job_id))


def test_a_checkpoint_that_is_not_what_was_measured_fails_its_job_and_is_not_kept(
    jobs: Queue, body: dict[str, Any], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = VerifyArtifact.supervise

    def verify_damaged(stage: VerifyArtifact, running: RunningJob) -> None:
        written = running.spec.artifact / "model.safetensors"
        tensors = load_file(written)
        tensors["model.norm.weight"][0] = numpy.nan
        save_file(tensors, written, {"format": "pt"})
        verify(stage, running)

    monkeypatch.setattr(VerifyArtifact, "supervise", verify_damaged)
    job_id = jobs.submit(body)
    assert work().result(120) == "failed"
    error = jobs.job(job_id).error
    assert error is not None and error.code == "reload_check_failed" and "differ by nan" in error.message
    assert not artifact(jobs, job_id).exists()


def test_the_dense_model_is_evaluated_once_and_figures_equal_those_of_a_job_alone(
    jobs: Queue, work: Work, body: dict[str, Any], dense: str
) -> None:
    sweeps = Sweeps(jobs.sessions, jobs.settings, jobs.store, jobs.team)
    varied = {"method": ["magnitude", "sparsegpt"], "sparsity": [0.5]}
    job = {name: value for name, value in body.items() if name not in ("method", "sparsity")}
    sweep_id = sweeps.submit({"job": job, "grid": varied, "max_concurrent": 2})
    while sweeps.get(sweep_id).status == "running":
        assert sweeps.advance() <= 1, "the second waits for the dense figures, then runs"
        if sweeps.jobs("queued"):
            assert work().result(120) == "succeeded"
    results = sweeps.results(sweep_id)
    ids = [str(point.job) for point in results.points]
    told = [
        [event.data["value"] for event in jobs.events(each) if event.data.get("name") == "dense_evaluation"]
        for each in ids
    ]
    assert told == [[1.0], []], "one evaluation of the dense model in the whole sweep"
    first, second = (jobs.report(each)["dense"] for each in ids)
    assert (first["measured"], first["taken"]) == (1, 0) and (second["measured"], second["taken"]) == (0, 1)
    assert first["figures"] == second["figures"]
    assert any("taken from job " + ids[0] in line for line in jobs.logs(ids[1]))
    swept, alone = (jobs.job(each).metrics or {} for each in (ids[1], dense))
    assert all(swept[name] == alone[name] for name in ("perplexity", "sparsity", "parameters", "bytes"))
    (front,) = [point.label for point in results.points if point.on_front and point.values["method"] == "sparsegpt"]
    assert front == "sparsegpt · 50%"
