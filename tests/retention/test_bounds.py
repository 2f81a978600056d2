"""Bounds of retention: what it costs grows with what goes, and no team keeps another waiting."""

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.retention import service
from core.service.retention.schemas import KeepTagged, RetentionPolicy
from core.service.retention.tables import ArtifactRow, RetentionPolicyRow
from core.settings import Settings
from tests.retention.many import add_many

Sessions = sessionmaker[Session]
POLICY = RetentionPolicy(keep_days=30, keep_tagged=KeepTagged(metadata={"keep": "yes"}))


def left(sessions: Sessions, team: str) -> int:
    with transaction(sessions) as session:
        return session.scalar(select(func.count()).where(ArtifactRow.team_id == team)) or 0


def set_policy(sessions: Sessions, team: str, policy: RetentionPolicy = POLICY) -> None:
    with transaction(sessions) as session:
        service.set_retention(session, team, policy)


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
