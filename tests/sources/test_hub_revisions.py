"""Memory of the hub's models: it lasts for a while after its last use, and each team has a bounded part."""

from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.architectures.undiscovered import describe_source
from core.service.sources.hub_models import HubRevision
from core.service.sources.hub_revisions import (
    PUBLIC,
    find_revision,
    forget_unused_revisions,
    remember_revision,
)
from core.settings import Settings
from tests.model_folders import write_llama
from worker.dispatcher.clock import DutyRun, make_duties

Sessions = sessionmaker[Session]


def revision(folder: Path, number: int) -> HubRevision:
    return HubRevision("forest/oak", f"{number:040}", describe_source(folder), (), is_public=True)


def execute(sessions: Sessions, statement: str) -> list[Any]:
    with transaction(sessions) as session:
        result = session.execute(text(statement))
        return list(result) if result.returns_rows else []  # type: ignore[attr-defined]


def test_a_revision_is_forgotten_long_after_its_last_use(
    sessions: Sessions, settings: Settings, tmp_path: Path
) -> None:
    folder = write_llama(tmp_path / "oak")
    with transaction(sessions) as session:
        for number in range(3):
            remember_revision(session, PUBLIC, revision(folder, number), "team_a")
    execute(sessions, "UPDATE hub_revisions SET used_at = now() - interval '91 days'")
    with transaction(sessions) as session:
        found = find_revision(session, PUBLIC, "forest/oak", f"{1:040}")
        assert found is not None and found.description.layers == 2
    duty = next(duty for duty in make_duties(sessions, settings) if duty.name == "old hub revisions")
    duty.run(DutyRun(sessions, settings))
    assert execute(sessions, "SELECT revision FROM hub_revisions") == [(f"{1:040}",)]


def test_of_a_team_so_many_are_remembered_those_used_last(sessions: Sessions, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "oak")
    for number in range(5):
        with transaction(sessions) as session:
            remember_revision(session, PUBLIC, revision(folder, number), "team_a", most=3)
    with transaction(sessions) as session:
        remember_revision(session, "team_b", revision(folder, 0), "team_b", most=3)
    rows = execute(sessions, "SELECT revision FROM hub_revisions WHERE team_id = 'team_a' ORDER BY revision")
    assert rows == [(f"{number:040}",) for number in (2, 3, 4)]
    assert execute(sessions, "SELECT count(*) FROM hub_revisions WHERE team_id = 'team_b'") == [(1,)]
    with transaction(sessions) as session:
        assert forget_unused_revisions(session, 90) == 0
