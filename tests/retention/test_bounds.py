"""Bounds of retention: what it costs grows with what goes, and no team keeps another waiting."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.retention import service
from core.service.retention.schemas import KeepTagged, RetentionPolicy
from core.service.retention.tables import ArtifactRow, RetentionPolicyRow
from core.settings import Settings
from tests.retention.many import add_many

Sessions = sessionmaker[Session]
POLICY = RetentionPolicy(keep_days=30, keep_tagged=KeepTagged(metadata={"keep": "yes"}))


@dataclass
class Statements:
    """Rows that each statement brought back."""

    rows: list[int] = field(default_factory=list)


@contextmanager
def counted(sessions: Sessions) -> Iterator[Statements]:
    """Count the statements, and the rows that they bring back."""
    sent = Statements()

    def after(_connection: Any, cursor: Any, *_: object) -> None:
        sent.rows.append(cursor.rowcount if cursor.description else 0)

    event.listen(sessions.kw["bind"], "after_cursor_execute", after)
    try:
        yield sent
    finally:
        event.remove(sessions.kw["bind"], "after_cursor_execute", after)


def left(sessions: Sessions, team: str) -> int:
    with transaction(sessions) as session:
        return session.scalar(select(func.count()).where(ArtifactRow.team_id == team)) or 0


def set_policy(sessions: Sessions, team: str, policy: RetentionPolicy = POLICY) -> None:
    with transaction(sessions) as session:
        service.set_retention(session, team, policy)


def test_a_turn_costs_what_goes_whatever_number_stays(sessions: Sessions, settings: Settings, team: str) -> None:
    set_policy(sessions, team)
    service.apply_retention(sessions, settings)  # whose store it is, is asked once in a while
    took = []
    for stay in (50, 450):
        add_many(sessions, team, stay, days=3)
        add_many(sessions, team, 5, days=40)
        with counted(sessions) as sent:
            assert service.apply_retention(sessions, settings) == 5
        took.append((len(sent.rows), sum(sent.rows)))
    assert took[0] == took[1] and left(sessions, team) == 500


def test_what_is_old_and_stays_is_looked_at_in_pieces(
    sessions: Sessions, settings: Settings, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOKED_AT", 20)
    set_policy(sessions, team)
    add_many(sessions, team, 70, days=50, keep="yes")
    add_many(sessions, team, 1, days=40)
    with counted(sessions) as sent:
        assert service.apply_retention(sessions, settings) == 1
    assert max(sent.rows) == 20 and left(sessions, team) == 70


def test_the_list_of_a_preview_is_capped_and_its_counts_are_of_all(
    api: TestClient, sessions: Sessions, team: str
) -> None:
    add_many(sessions, team, service.MOST_SHOWN + 10, days=40)
    add_many(sessions, team, 30, days=40, keep="yes")
    with transaction(sessions) as session, counted(sessions) as sent:
        service.preview(session, team, POLICY)
    assert max(sent.rows) == service.MOST_SHOWN
    tried = api.post("/v1/team/retention/preview", json=POLICY.model_dump(mode="json")).raise_for_status().json()
    assert (tried["goes"], tried["stays"], tried["bytes_freed"]) == (1010, 30, 1010)
    assert (len(tried["artifacts"]), tried["has_more"]) == (1000, True)


def test_teams_take_turns_and_a_turn_is_bounded(
    sessions: Sessions, settings: Settings, team: str, other_team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOKED_AT", 2)
    monkeypatch.setattr(service, "MOST_REMOVED", 4)
    for each, count in ((team, 9), (other_team, 3)):
        add_many(sessions, each, count, days=40)
        set_policy(sessions, each)
    turns = [(service.apply_retention(sessions, settings), left(sessions, team), left(sessions, other_team))]
    turns += [(service.apply_retention(sessions, settings), left(sessions, team), 0) for _ in range(3)]
    assert turns == [(7, 5, 0), (4, 1, 0), (1, 0, 0), (None, 0, 0)]


def test_a_team_whose_policy_cannot_be_read_keeps_no_other_waiting(
    sessions: Sessions, settings: Settings, team: str, other_team: str
) -> None:
    for each in (team, other_team):
        add_many(sessions, each, 1, days=40)
        set_policy(sessions, each)
    with transaction(sessions) as session:
        broken = update(RetentionPolicyRow).where(RetentionPolicyRow.team_id == team)
        session.execute(broken.values(policy={"keep_days": "as long as it takes"}))
    assert service.apply_retention(sessions, settings) == 1
    assert (left(sessions, team), left(sessions, other_team)) == (1, 0)
