"""What an installation must not leave is found by the checker: uploads, files, work, locks, processes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from bench.chaos.promises import Promise, leftovers
from tests.chaos.conftest import TEAM, Installed, broken
from tests.databases import administrator

pytestmark = pytest.mark.timeout(300)


@contextmanager
def open_upload(installed: Installed) -> Iterator[None]:
    headers = {"Authorization": f"Bearer {installed.installation.admin_keys[TEAM]}"}
    body = {"kind": "dataset", "name": "left", "files": [{"path": "a.txt", "bytes": 1, "sha256": "0" * 64}]}
    with httpx.Client(base_url=installed.installation.apis[0], headers=headers) as client:
        made = client.post("/v1/uploads", json=body)
        yield
        client.delete(f"/v1/uploads/{made.json()['id']}")


@contextmanager
def work_folder(installed: Installed) -> Iterator[None]:
    folder = installed.installation.folder / "worker-1/work" / installed.done
    folder.mkdir(parents=True)
    yield
    folder.rmdir()


@contextmanager
def half_a_file(installed: Installed) -> Iterator[None]:
    file = installed.installation.folder / "worker-1/cache/entries/model.safetensors.partial"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    yield
    file.unlink()


@contextmanager
def lock(installed: Installed) -> Iterator[None]:
    with administrator(installed.installation.database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(1)")
        yield


@pytest.mark.parametrize(
    ("check", "leave"),
    [
        (leftovers.no_upload_is_left, open_upload),
        (leftovers.no_work_is_left, work_folder),
        (leftovers.no_work_is_left, half_a_file),
        (leftovers.no_transaction_is_left, lock),
    ],
)
def test_what_is_left_over_is_found(
    check: Promise, leave: Callable[[Installed], AbstractContextManager[None]], installed: Installed
) -> None:
    with installed.look() as seen:
        assert not list(check(seen))
        with leave(installed):
            assert broken(check(seen)) == {"leftovers"}


@pytest.mark.parametrize("variable", ["CHAOS_RUN", "LC_CHAOS_RUN"])
def test_a_process_is_left_over_where_it_is_of_the_run_and_not_expected(variable: str, installed: Installed) -> None:
    command = [sys.executable, "-S", "-c", "print(flush=True); input()"]
    with (
        installed.look() as seen,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={variable: "a run"}) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        assert broken(leftovers.processes_left(seen, "a run", ())) == {"leftovers"}
        assert not list(leftovers.processes_left(seen, "a run", (process.pid,)))
        assert not list(leftovers.processes_left(seen, "another run", ()))
        process.kill()
