"""What starts beside the migration waits until the schema is there."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
