"""PostgreSQL goes away and comes back while a job runs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from core.logs import configure_logs
from core.settings import Settings
from tests.databases import fresh_database, make_template
from tests.worker.conftest import Held, Queue, StartWorker, eventually
from worker.embedded.postgres import postgres, start_postgres, stop_postgres


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    with TemporaryDirectory(prefix="secateur-test-") as folder:
        path = Path(folder, "postgres")
        with postgres(path) as url:
            make_template(url)
            yield path


@pytest.fixture
def data_dir(cluster: Path) -> Path:
    """A server to be stopped at will; it runs."""
    start_postgres(cluster)
    return cluster


@pytest.fixture
def database_url(data_dir: Path) -> Iterator[str]:
    """A database of this test's own there."""
    with fresh_database(start_postgres(data_dir)) as url:
        yield url


Logged = Callable[[str], None]


@pytest.fixture
def wait_for_log(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Logged:
    """Waits until the worker has logged some words."""
    configure_logs(settings)
    seen: list[str] = []

    def is_there(words: str) -> bool:
        seen.append(capsys.readouterr().err)
        return words in "".join(seen)

    def wait(words: str) -> None:
        eventually(lambda: is_there(words))

    return wait


def test_a_job_whose_end_falls_into_the_outage_is_ended_after_it(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker, data_dir: Path, tmp_path: Path,
    wait_for_log: Logged,
) -> None:  # fmt: skip
    job_id = jobs.submit(job_body)
    held = Held("verify", tmp_path)
    worker = start_worker(**held.behaviour)
    jobs.runner_pids(job_id)
    stop_postgres(data_dir)
    held.let_go()
    wait_for_log("not written, trying again")
    start_postgres(data_dir)
    assert worker.result() == "succeeded"
    assert jobs.job(job_id).status == "succeeded"
