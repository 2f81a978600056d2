"""The embedded PostgreSQL: started, stopped, and found again after the worst."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from sqlalchemy import make_url

from core.database_url import libpq_url
from tests.worker.conftest import eventually, is_alive
from worker.embedded.postgres import PostgresFailed, is_running, postgres, start_postgres, stop_postgres

OWNER = """
import sys, time
from pathlib import Path
from worker.embedded.postgres import start_postgres
print(start_postgres(Path(sys.argv[1])), flush=True)
time.sleep(600)
"""
STARTER = """
import sys
from pathlib import Path
from worker.embedded.postgres import postgres
with postgres(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def no_cluster() -> Iterator[Path]:
    """Not in pytest's folder, which another pytest would close to the server's user."""
    with TemporaryDirectory(prefix="secateur-test-") as folder:
        path = Path(folder, "postgres")
        yield path
        stop_postgres(path)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A cluster that was started once: to make one takes a disk seconds, to copy it less than one."""
    with TemporaryDirectory(prefix="secateur-test-") as folder:
        path = Path(folder, "postgres")
        start_postgres(path)
        stop_postgres(path)
        yield path


@pytest.fixture
def data_dir(no_cluster: Path, made: Path) -> Path:
    return copied(made, no_cluster)


def copied(made: Path, data_dir: Path) -> Path:
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", made, data_dir], check=True)
    return data_dir


def ask(url: str, query: str) -> object:
    with psycopg.connect(libpq_url(url)) as connection:
        row = connection.execute(query).fetchone()
        return row and row[0]


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postmaster.pid").read_text().split()[0])


def test_starting_twice_is_starting_once_and_data_survives_a_stop_and_kill_9(data_dir: Path) -> None:
    url = start_postgres(data_dir)
    pid = postmaster(data_dir)
    ask(url, "WITH made AS (SELECT lo_create(4711)) SELECT * FROM made")
    assert start_postgres(data_dir) == url and postmaster(data_dir) == pid
    stop_postgres(data_dir)
    is_kept = "SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 4711"
    assert ask(start_postgres(data_dir), is_kept) == 1
    os.kill(postmaster(data_dir), signal.SIGKILL)
    eventually(lambda: not is_running(data_dir))
    assert (data_dir / "postmaster.pid").exists(), "the pid file is what a killed server leaves"
    assert ask(start_postgres(data_dir), is_kept) == 1


def test_a_pid_file_that_names_another_process_is_no_server(data_dir: Path) -> None:
    start_postgres(data_dir)
    written = (data_dir / "postmaster.pid").read_text()
    stop_postgres(data_dir)
    recycled = "\n".join([str(os.getpid()), *written.split("\n")[1:]])
    (data_dir / "postmaster.pid").write_text(recycled)
    assert not is_running(data_dir)
    assert not stop_postgres(data_dir), "this very process would have been ended"
    (data_dir / "postmaster.pid").write_text(recycled)
    assert ask(start_postgres(data_dir), "SELECT 1") == 1


def test_a_path_that_sockets_or_urls_do_not_take(no_cluster: Path, made: Path) -> None:
    deep = copied(made, no_cluster.parent / ("d" * 120) / "my 100% home" / "postgres")
    url = start_postgres(deep)
    try:
        assert ask(url, "SELECT 1") == 1
        socket_dir = Path(str(make_url(url).query["host"]))
        assert len(str(socket_dir)) < 90 and socket_dir.stat().st_mode & 0o077 == 0
    finally:
        stop_postgres(deep)
    assert not socket_dir.exists()


def test_it_ends_with_an_owner_killed_with_9(data_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(data_dir)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().decode().strip()
        assert ask(url, "SELECT 1") == 1
        pid = postmaster(data_dir)
        owner.kill()
        eventually(lambda: not is_alive(pid))
    assert ask(start_postgres(data_dir), "SELECT 1") == 1


def test_a_cluster_of_another_version_is_refused(no_cluster: Path) -> None:
    no_cluster.mkdir()
    (no_cluster / "PG_VERSION").write_text("16\n")
    with pytest.raises(PostgresFailed, match="16"):
        start_postgres(no_cluster)


def test_who_started_it_ends_it_once_others_are_done(data_dir: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(data_dir)]
    piped = subprocess.PIPE
    with subprocess.Popen(command, stdin=piped, stdout=piped, stderr=piped, text=True) as starter:
        assert starter.stdin is not None and starter.stdout is not None and starter.stderr is not None
        url = starter.stdout.readline().strip()
        with postgres(data_dir):
            starter.stdin.close()
            assert "another process uses the database" in starter.stderr.readline()
            assert ask(url, "SELECT 1") == 1
        assert starter.wait(60) == 0
    assert not is_running(data_dir)
