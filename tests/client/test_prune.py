"""`secateur prune` against the real service, with a worker that ends what it takes at once."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import claim, finish_failed
from core.storage import Store
from secateur.cli.unfinished import RECORD
from secateur_wire.errors import GateMissed, TooLittleText
from tests.api.ended_job import FILES, finish_next
from tests.client.command_line import COMMAND, RunHere, run_here
from tests.client.cutting_proxy import Cuts, cutting
from tests.model_folders import write_llama, write_text

METRICS = {
    "perplexity": {"leaves": {"dense": 20.0, "pruned": 21.0, "ratio": 1.05, "sequence_length": 32}},
    "sparsity": {"prunable": 0.5, "model": 0.5},
}
ASKED = ("--for", "sparsity", "--amount", "0.5")


@pytest.fixture
def oak(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "my oak")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "pruned"


@pytest.fixture
def finish(sessions: sessionmaker[Session], store: Store, tmp_path: Path) -> Callable[[], str | None]:
    """Something that ends the next job well."""
    return lambda: finish_next(sessions, store, tmp_path / "made", files={**FILES, "README.md": b"#"}, metrics=METRICS)


@contextmanager
def working(end: Callable[[], object]) -> Iterator[None]:
    """While a worker ends whatever comes."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            end()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def test_a_folder_is_pruned_by_one_command(
    here: RunHere, live_api: httpx.Client, oak: Path, out: Path, finish: Callable[[], str | None], tmp_path: Path
) -> None:
    text = write_text(tmp_path / "leaves.txt", words=40_000)
    with working(finish):
        done = here("prune", str(oak), "-o", str(out), *ASKED, "--calibration", str(text))
    assert done.code == 0, done.err
    assert {each.name for each in out.iterdir()} == {*FILES, "README.md"}
    assert "as good as dense" in done.out and str(out) in done.out and "50 % of the prunable weights" in done.out
    (job,) = live_api.get("/v1/jobs").json()["data"]
    assert (job["model"], job["calibration"]["dataset"], job["sparsity"]) == ("my-oak", "leaves", 0.5)
    again = here("prune", str(oak), "-o", str(out), *ASKED, "--calibration", str(text))
    assert again.code == 2 and "a pruned model is there already" in " ".join(again.err.split())
    with working(finish):
        named = here("prune", "my-oak", "-o", str(tmp_path / "b"), *ASKED, "--calibration", "leaves", "--json")
    assert named.code == 0, named.err
    assert named.json["folder"] == str(tmp_path / "b") and named.json["job"]["model"] == "my-oak"
    other = write_llama(tmp_path / "elsewhere" / "my-oak", seed=1)
    with working(finish):
        done = here("prune", str(other), "-o", str(tmp_path / "c"), *ASKED, "--calibration", "leaves")
    assert done.code == 0 and "as model my-oak-2" in done.err, "another model of the same name"


def cut_off(live_api: httpx.Client, arguments: list[str], when: str, number: int) -> subprocess.CompletedProcess[str]:
    """The command as a process that a signal ends when it has said this."""
    environment = os.environ | {
        "SECATEUR_URL": str(live_api.base_url).rstrip("/"),
        "SECATEUR_API_KEY": live_api.headers["Authorization"].removeprefix("Bearer "),
    }
    with subprocess.Popen(
        ["env", "--default-signal=INT", COMMAND, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if when in line:
                process.send_signal(number)
                when = "never again"
    return subprocess.CompletedProcess(arguments, process.returncode, stderr=told)


def test_an_interrupt_cancels_and_the_same_command_goes_on(
    here: RunHere, live_api: httpx.Client, oak: Path, out: Path, finish: Callable[[], str | None]
) -> None:
    command = ["prune", str(oak), "-o", str(out), *ASKED]
    ended = cut_off(live_api, command, "queued", signal.SIGINT)
    assert ended.returncode == 130 and "Traceback" not in ended.stderr, ended.stderr
    (job,) = live_api.get("/v1/jobs").json()["data"]
    assert job["status"] == "cancelled" and job["id"] in ended.stderr
    assert [each.name for each in out.iterdir()] == [RECORD]
    other = here("prune", str(oak), "-o", str(out), "--for", "speed")
    said = " ".join(other.err.replace("│", " ").split())
    assert other.code == 2 and "goal: sparsity there, speed here" in said
    with working(finish):
        done = here(*command)
    assert done.code == 0 and f"going on with {job['id']}" in done.err, done.err
    assert len(live_api.get("/v1/jobs").json()["data"]) == 1 and (out / "model.safetensors").is_file()


def test_a_job_that_finished_after_a_kill_is_downloaded_and_a_half_file_completed(
    here: RunHere, live_api: httpx.Client, oak: Path, out: Path, finish: Callable[[], str | None]
) -> None:
    command = ["prune", str(oak), "-o", str(out), *ASKED]
    assert cut_off(live_api, command, "queued", signal.SIGKILL).returncode == -signal.SIGKILL
    job = finish()
    record = json.loads((out / RECORD).read_text())
    assert record["job"] == job
    (weights,) = (
        each for each in live_api.get(f"/v1/jobs/{job}/artifacts").json()["data"] if each["path"] == "model.safetensors"
    )
    (out / f".model.safetensors.{weights['sha256'][:16]}.part").write_bytes(FILES["model.safetensors"][:3])
    (out / RECORD).write_text(json.dumps(record | {"job": None}))  # killed before the answer was written down
    done = here(*command)
    assert done.code == 0, done.err
    assert (out / "model.safetensors").read_bytes() == FILES["model.safetensors"] and not (out / RECORD).exists()
    assert len(live_api.get("/v1/jobs").json()["data"]) == 1, "its key stands for the same job"


def test_a_submission_whose_answer_never_came_is_no_second_job(
    live_api: httpx.Client,
    admin_key: str,
    oak: Path,
    out: Path,
    finish: Callable[[], str | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cuts, port = Cuts(unanswered=b"POST /v1/jobs HTTP"), live_api.base_url.port
    assert port is not None
    command = ["prune", str(oak), "-o", str(out), *ASKED]
    with cutting(port, cuts) as url:
        here = run_here(url, admin_key, monkeypatch, capsys)
        broken = here(*command)
        assert broken.code == 1 and "run the same command to go on" in broken.err and cuts.made > 1, broken.err
        (job,) = live_api.get("/v1/jobs").json()["data"]
        assert job["status"] == "queued" and json.loads((out / RECORD).read_text())["job"] is None
        cuts.unanswered = None
        with working(finish):
            done = here(*command)
    assert done.code == 0 and f"submitted as {job['id']}" in done.err, done.err
    assert len(live_api.get("/v1/jobs").json()["data"]) == 1 and (out / "model.safetensors").is_file()


def test_a_job_that_ends_badly_leaves_what_goes_on(
    here: RunHere, sessions: sessionmaker[Session], oak: Path, out: Path, finish: Callable[[], str | None]
) -> None:
    def fail(code: str) -> None:
        problem = {"code": code, "message": "too much went", "param": None, "retryable": False}
        with transaction(sessions) as session:
            taken = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
            if taken is not None:
                finish_failed(session, taken.job_id, taken.attempt, problem)

    command = ["prune", str(oak), "-o", str(out), *ASKED]
    with working(lambda: fail("out_of_memory")):
        failed = here(*command)
    assert failed.code == 1 and "too much went" in failed.err and (out / RECORD).exists()
    with working(lambda: fail(TooLittleText.code)):
        refused = here(*command)
    assert refused.code == 1 and "the same command would fail again" in refused.err and not out.exists()
    with working(lambda: fail(GateMissed.code)):
        missed = here(*command)
    assert missed.code == 3 and "secateur download job_" in missed.err, missed.err
    assert not out.exists(), "there is nothing to go on with"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{oak} -o {full}", "the folder is not empty (notes.txt)"),
        ("{oak} -o {full}/notes.txt", "that is a file"),
        ("{full} -o {out}", "has no config.json"),
        ("./none -o {out}", "there is no such model folder"),
        ("{oak} -o {out} --amount 0.5 --keep-quality 1.1", "not both"),
        ("elm -o {out}", "there is no model 'elm'"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    here: RunHere, oak: Path, out: Path, tmp_path: Path, arguments: str, said: str
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    words = [word.format(oak=oak, out=out, full=full) for word in arguments.split()]
    refused = here("prune", *words)
    assert refused.code == 2 and said in " ".join(refused.err.replace("│", " ").split()), refused.err
    assert not out.exists() and [each.name for each in full.iterdir()] == ["notes.txt"]


def test_a_disk_that_is_too_small_is_said_before_anything_comes(
    here: RunHere, oak: Path, out: Path, finish: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    full = real(out.parent)._replace(free=5)
    command = ["prune", str(oak), "-o", str(out), *ASKED]
    with monkeypatch.context() as small, working(finish):
        small.setattr(shutil, "disk_usage", lambda path: full if Path(path) == out else real(path))
        refused = here(*command)
    assert refused.code == 1 and "10 B are to come, and 5 B are free on its disk" in " ".join(refused.err.split())
    assert [each.name for each in out.iterdir()] == [RECORD]
    assert here(*command).code == 0, "with room, it goes on with the job that ended"
    assert (out / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_one_command_at_a_time_writes_into_a_folder(here: RunHere, oak: Path, out: Path) -> None:
    out.mkdir()
    other = os.open(out, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    refused = here("prune", str(oak), "-o", str(out))
    os.close(other)
    assert refused.code == 2 and "another `secateur prune` writes" in " ".join(refused.err.replace("│", " ").split())
