"""Embedded instance of this machine: its database is running and up to date, and its first key exists."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from core.database import migrate, session_factory, transaction
from core.service.teams.bootstrap import DEFAULT_TEAM, bootstrap, create_team
from core.settings import Settings
from worker.embedded.postgres import postgres
from worker.failures import CommandFailed


@dataclass(frozen=True)
class EmbeddedInstance:
    """Instance in a home; `settings` name the database, and commands on the server act for the default team."""

    settings: Settings
    sessions: sessionmaker[Session]
    team_id: str


def private_home(settings: Settings) -> Path:
    """Return the home, made if it is missing; other users of this machine can read nothing in it.

    Root's home can be passed through, because PostgreSQL then runs as another user. What stands in the home is closed
    too; links are left as they are, and so is what belongs to others.
    """
    home = settings.home.resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = os.geteuid()
    for path in (home, *home.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            passable = 0o011 if path == home and user == 0 else 0
            if status.st_uid == user and not path.is_symlink():
                path.chmod(status.st_mode & 0o7700 | passable)
    return home


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Keep from other users of this machine what this process and its children write inside the `with`."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def open_instance(settings: Settings) -> Iterator[EmbeddedInstance]:
    """Open the configured database, or the embedded one, which is stopped at the end if it was not running before.

    Raises CommandFailed if the database cannot be migrated to this version's schema.
    """
    settings = settings.model_copy(update={"home": private_home(settings)})
    with private_files(), contextlib.ExitStack() as stack:
        if settings.database_url is None:
            url = stack.enter_context(postgres(settings.home / "postgres"))
            settings = settings.model_copy(update={"database_url": url})
        try:
            migrate(settings)
        except ValueError as error:
            raise CommandFailed(str(error)) from error
        sessions = session_factory(settings)
        stack.callback(sessions.kw["bind"].dispose)
        with transaction(sessions) as session:
            bootstrap(session, settings)
            team_id = create_team(session, DEFAULT_TEAM)
        yield EmbeddedInstance(settings, sessions, team_id)
