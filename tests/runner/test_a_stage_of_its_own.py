"""A stage is one folder: elsewhere on the package's path it is found, runs in a job, and goes on once it was killed."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from safetensors.numpy import load_file

from core.pipeline import stages
from core.pipeline.stages.registry import SPECS, STAGES
from tests.runner.conftest import Work, artifact
from tests.runner.models import register_layers
from tests.worker.conftest import Queue

ROOT = Path(__file__).parents[2]

SPEC = '''
    """Count of the artifact's zeros: when a job has it, what it is told, and what becomes of its answer."""

    from pathlib import Path
    from typing import ClassVar, Literal

    from core.pipeline.messages import Spec, TaskOutput
    from core.pipeline.stages.stage import JobStage


    class CountSpec(Spec):
        """Spec of counting the zeros of a model's tensors."""

        saves_progress: ClassVar[bool] = True
        task: Literal["count_zeros"] = "count_zeros"
        model: Path
        work: Path
        previous: list[Path]


    class CountOutput(TaskOutput):
        """Zeros of a model, and the number of tensors that an earlier attempt had counted."""

        zeros: int
        resumed_from: int


    class CountZeros(JobStage):
        """Count of the artifact's zeros, before it is verified."""

        rank = 95
        shown_as = "evaluate"
        part = 0.95, 0.95

        def applies(self, spec):
            return not spec.recipe.measures

        def supervise(self, job):
            spec = job.spec
            message = CountSpec(model=spec.artifact / "model.safetensors", work=spec.work, previous=spec.previous)
            output = job.tasks.run(message, CountOutput)
            job.report.note(f"{output.zeros} zeros, resumed from tensor {output.resumed_from}.")
            job.report.keep_peak("count_zeros", output.peak_memory)
'''
RUN = '''
    """Count of the zeros of a model's tensors; the first attempt is killed in the middle."""

    import os
    import signal

    from safetensors.torch import load_file

    from core.engine.resume.kinds import Kind
    from core.engine.resume.store import ResumeStore, Saved
    from core.pipeline.stages.count_zeros.spec import CountOutput

    COUNTED = Kind("counted")


    def run(spec, context):
        store = ResumeStore(spec.work, "the same", spec.previous)
        saved = store.load(COUNTED)
        begin, zeros = (saved.position, saved.state["zeros"]) if isinstance(saved, Saved) else (0, 0)
        tensors = load_file(spec.model)
        for position, name in enumerate(sorted(tensors)[begin:], begin + 1):
            zeros += int((tensors[name] == 0).sum())
            store.save(COUNTED, position, {}, {"zeros": zeros})
            context.progress.log(f"counted {position} of {len(tensors)} tensors")
            if not begin and position == 5:
                os.kill(os.getpid(), signal.SIGKILL)
        return CountOutput(zeros=zeros, resumed_from=begin, peak_memory=context.peak_memory())
'''
EVERYWHERE = """
    from pathlib import Path

    from core.pipeline import stages

    stages.__path__.append(str(Path(__file__).parent))
"""
PARENT = """
    import sys

    import worker.tasks
    from core.pipeline.stages.registry import STAGES

    ranked = sorted(STAGES, key=lambda task: STAGES[task].rank)
    print(ranked[ranked.index("count_zeros") + 1], "torch" in sys.modules)
"""


@pytest.fixture
def more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with the one folder more, which is on the package's path in every process that is started."""
    folder = tmp_path / "more" / "count_zeros"
    folder.mkdir(parents=True)
    for name, source in (("__init__", '"""Zeros."""'), ("spec", SPEC), ("run", RUN)):
        (folder / f"{name}.py").write_text(dedent(source))
    (folder.parent / "sitecustomize.py").write_text(dedent(EVERYWHERE))
    monkeypatch.setenv("PYTHONPATH", f"{folder.parent}:{ROOT}")
    return folder.parent


@pytest.fixture
def _known_here(more: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the stage known in the test's process, as it is in a new one."""
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(more)])
    spec = import_module("core.pipeline.stages.count_zeros.spec")
    monkeypatch.setitem(SPECS, "count_zeros", spec.CountSpec)
    monkeypatch.setitem(STAGES, "count_zeros", spec.CountZeros())
    yield
    for module in [each for each in sys.modules if each.startswith("core.pipeline.stages.count_zeros")]:
        del sys.modules[module]
    delattr(stages, "count_zeros")


@pytest.mark.usefixtures("more")
def test_it_is_found_in_its_place_by_a_worker_without_torch() -> None:
    run = subprocess.run([sys.executable, "-c", dedent(PARENT)], capture_output=True, text=True)
    assert run.stdout.split() == ["verify", "False"], run.stderr


@pytest.mark.usefixtures("_known_here")
def test_it_runs_in_a_job_and_goes_on_where_its_runner_was_killed(jobs: Queue, work: Work) -> None:
    body: dict[str, Any] = register_layers(jobs.sessions, jobs.settings, jobs.team)
    job_id = jobs.submit({**body, "method": "magnitude", "calibration": None})
    assert [work().result(60) for _ in range(2)] == ["queued", "succeeded"], jobs.job(job_id).error
    report, tensors = jobs.report(job_id), load_file(artifact(jobs, job_id) / "model.safetensors")
    zeros = sum(int((tensor == 0).sum()) for tensor in tensors.values())
    assert f"{zeros} zeros, resumed from tensor 5." in report["notes"]
    assert report["peak_memory_of_other_processes"]["count_zeros"]["resident"] > 0
    counted = [line.split()[1] for line in jobs.logs(job_id) if line.startswith("counted ")]
    assert counted == [str(number) for number in range(1, len(tensors) + 1)], "no tensor was counted twice"
