"""Embedded instance of this machine: its database is running and up to date, and its first key exists."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

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


@contextlib.contextmanager
def open_instance(settings: Settings) -> Iterator[EmbeddedInstance]:
    """Open the configured database, or the embedded one, which is stopped at the end if it was not running before.

    Raises CommandFailed if the database cannot be migrated to this version's schema.
    """
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    settings.home.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
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
