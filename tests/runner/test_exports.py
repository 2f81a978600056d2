"""A job whose artifact runs in llama.cpp too, as its report and its card say."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from core.database import transaction
from core.engine.exporters.gguf.exporter import GgufFiles
from core.engine.models.folder import open_model
from core.pipeline.messages import Spec
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.model import resolve_model
from core.service.sources.references import StoredModel
from secateur.engines.choice import choose
from tests.gguf.trained import LINES, save_trained
from tests.runner.conftest import Work, artifact, give_model, give_text, shown_ways
from tests.runner.models import write_model
from tests.shown_ways import lay_out, run_in_shell
from tests.worker.conftest import Queue, runner_of
from worker.runner.client import run_task


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    folder = save_trained(jobs.settings.models_root / "trained")
    words = write_model(jobs.settings.models_root / "words", 1)
    text = jobs.settings.datasets_root / "lines.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("\n\n".join(line for line in LINES if line.strip()))
    for name, path in (("trained", folder), ("words", words)):
        give_model(jobs, name, path)
    give_text(jobs, "lines", text)
    return {
        "model": "trained",
        "method": "l2-structured",
        "sparsity": 0.25,
        "evaluation": {"datasets": ["lines"], "samples": 4, "sequence_length": 64},
        "gates": {"max_export_kl": 0.01},
        "output": {"exports": [{"format": "gguf", "types": ["Q8_0"]}]},
    }


def test_a_job_killed_while_it_exports_leaves_the_files_of_an_undisturbed_one(
    jobs: Queue, body: dict[str, Any], work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job_id = jobs.submit(body)
    killed: list[psutil.Process] = []

    def run_and_kill(spec: Spec, *, on_wait: Callable[[], None], **given: Any) -> dict[str, Any]:
        def wait() -> None:
            on_wait()
            runner = runner_of(os.getpid())
            if runner is not None and not killed and "running model-F16.gguf in llama.cpp" in jobs.logs(job_id):
                process = psutil.Process(runner)
                killed.extend([process, *process.children(recursive=True)])
                process.kill()

        return run_task(spec, on_wait=wait, **given)

    monkeypatch.setattr("worker.supervisor.attempt.run_task", run_and_kill)
    assert work().result(60) == "queued"
    assert not psutil.wait_procs(killed, timeout=20)[1], "llama.cpp ends with its runner"
    monkeypatch.undo()
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    job, report, folder = jobs.job(job_id), jobs.report(job_id), artifact(jobs, job_id)
    assert job.attempt == 2 and job.metrics is not None
    again = shutil.copytree(folder, tmp_path / "again", ignore=shutil.ignore_patterns("*.gguf*"))
    GgufFiles().export(
        open_model(again, own_artifact=True),
        ["Q8_0"],
        LINES,
        name="trained",
        device=torch.device("cpu"),
        threads=1,
        log=lambda text: None,
    )
    (exported,), (file,) = job.metrics["exports"], folder.glob("*.gguf*")
    assert file.name == exported["file"] == "model-Q8_0.gguf"
    assert file.read_bytes() == (again / file.name).read_bytes() and file.stat().st_size == exported["bytes"]
    assert exported["kl"] < 0.01 and exported["top_1"] > 0.9 and not exported["other_types"]
    assert exported["speed"]["dense_bytes"] > exported["bytes"]
    assert all(exported["speed"][of][model] > 0 for of in ("prefill", "decode") for model in ("dense", "pruned"))
    (row,) = report["gates"]["rows"]
    assert (row["on"], row["figure"], row["kept"]) == ("model-Q8_0.gguf", exported["kl"], True)
    assert report["recipe"]["parameters"]["round_to"] == 32
    assert any("Channels left are a multiple of 32" in note for note in report["notes"])
    card = (folder / "README.md").read_text()
    assert f"| {exported['bytes']:,} (KL" in card
    with transaction(jobs.sessions) as session:
        reference = resolve_model(
            RequestContext(session, jobs.team, jobs.store, jobs.settings), f"job:{job_id}"
        ).reference
    assert isinstance(reference, StoredModel) and not [each for each in reference.files if "gguf" in each.path]
    _chat_as_the_card_says(card, folder)
    transformers, llama_cpp = shown_ways(jobs, job_id)
    assert (transformers.runtime, llama_cpp.runtime) == ("transformers", "llama.cpp, Q8_0")
    lay_out(llama_cpp, folder, tmp_path)
    assert len(run_in_shell(llama_cpp.commands, tmp_path).split()) > 5
    kind, file = choose(folder)
    assert kind.id == "llama.cpp" and "".join(kind.open(file).go_on("The capital", 4))


def _chat_as_the_card_says(card: str, folder: Path) -> None:
    """Run the card's command that needs no llama.cpp of the system's, with a question, in the folder."""
    (command,) = (line for line in card.splitlines() if line.startswith("secateur run"))
    _, *words = shlex.split(command)
    done = subprocess.run(
        [Path(sys.executable).with_name("secateur"), *words],
        input=b"The apple\n",
        cwd=folder,
        capture_output=True,
        timeout=100,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]


def test_what_the_worker_finds_in_the_files_ends_a_job_before_it_prunes(
    jobs: Queue, body: dict[str, Any], work: Work
) -> None:
    job_id = jobs.submit(
        body | {"model": "words", "gates": {}, "output": {"exports": [{"format": "gguf", "types": ["F16"]}]}}
    )
    assert work().result(60) == "failed"
    job = jobs.job(job_id)
    assert job.error is not None and job.error.code == "invalid_request" and job.error.param == "output.exports"
    assert "tokenizer is of kind 'WordLevel'" in job.error.message and job.metrics is None
