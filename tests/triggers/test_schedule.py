"""Triggers fired by the clock: once a due time, whoever looks, and late rather than often."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.triggers.context import TriggerContext
from core.service.triggers.due import MOST_FAILURES
from core.service.triggers.schedule import next_due
from tests.conftest import bearer
from tests.triggers.conftest import Fixed, fire, make_trigger

NIGHTLY = {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}


@pytest.fixture
def scheduled(member_api: TestClient, trigger_body: dict[str, Any]) -> Fixed:
    placeholders = {**trigger_body["placeholders"], "commit": {"path": "/scheduled_at"}}
    return make_trigger(member_api, trigger_body, placeholders=placeholders, schedule=NIGHTLY)


def due_at(trigger: Fixed) -> datetime:
    return datetime.fromisoformat(trigger.api.get(trigger.path).json()["next_fire_at"])


def test_two_dispatchers_at_once_fire_a_due_time_once(scheduled: Fixed, context: TriggerContext) -> None:
    due = due_at(scheduled)
    assert due.astimezone(UTC).hour in (1, 2), "three in the morning in Berlin"
    assert fire(context, due - timedelta(seconds=1)) == []
    start = threading.Barrier(4)

    def dispatch(_: int) -> list[str]:
        start.wait()
        return [job.id for job in fire(context, due + timedelta(seconds=5))]

    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(dispatch, range(4)))
    (job,) = scheduled.jobs()
    (firing,) = scheduled.firings()
    assert (firing["source"], firing["outcome"], firing["job_id"]) == ("schedule", "accepted", job["id"])
    assert firing["payload"] == {"scheduled_at": due.isoformat()} and firing["note"] is None
    assert job["metadata"]["commit"] == due.isoformat()
    assert due_at(scheduled) > due + timedelta(hours=22)


def test_times_that_passed_while_nothing_ran_are_fired_once_and_late(scheduled: Fixed, context: TriggerContext) -> None:
    due = due_at(scheduled)
    now = due + timedelta(days=3, hours=1)
    assert len(fire(context, now)) == 1
    assert fire(context, now) == []
    (firing,) = scheduled.firings()
    assert "late" in firing["note"] and "3 later due times" in firing["note"]
    assert due_at(scheduled) > now


def test_a_due_time_that_comes_again_makes_no_second_job(
    scheduled: Fixed, context: TriggerContext, sessions: sessionmaker[Session]
) -> None:
    due = due_at(scheduled)
    fire(context, due)
    with transaction(sessions) as session:
        session.execute(text("UPDATE triggers SET next_fire_at = :due"), {"due": due})
    assert fire(context, due) == []
    assert [each["outcome"] for each in scheduled.firings()] == ["duplicate", "accepted"]


def test_an_error_is_written_down_and_ten_in_a_row_disable(
    scheduled: Fixed, context: TriggerContext, sessions: sessionmaker[Session], admin_key: str
) -> None:
    with transaction(sessions) as session:
        session.execute(text("UPDATE models SET name = 'gone'"))
    for count in range(1, MOST_FAILURES + 1):
        assert scheduled.api.get(scheduled.path).json()["enabled"], count
        assert fire(context, due_at(scheduled)) == []
    shown = scheduled.api.get(scheduled.path).json()
    assert (shown["enabled"], shown["next_fire_at"]) == (False, None)
    assert fire(context, datetime.now(UTC) + timedelta(days=300)) == []
    assert "tiny" in shown["disabled_reason"]
    firings = scheduled.firings()
    assert len(firings) == MOST_FAILURES
    assert {each["error"]["code"] for each in firings} == {"unknown_model"}
    entry = scheduled.api.get("/v1/audit", params={"action": "trigger.disable"}, headers=bearer(admin_key)).json()
    assert entry["data"][0]["actor"] == f"trigger:{scheduled.issued['id']}"
    with transaction(sessions) as session:
        session.execute(text("UPDATE models SET name = 'tiny'"))
    again = scheduled.api.patch(scheduled.path, json={"enabled": True}).json()
    assert again["enabled"] and again["disabled_reason"] is None and again["next_fire_at"] is not None


def test_a_success_between_failures_starts_the_count_anew(
    scheduled: Fixed, context: TriggerContext, sessions: sessionmaker[Session]
) -> None:
    for name in ("gone", "tiny"):
        with transaction(sessions) as session:
            session.execute(text("UPDATE models SET name = :name"), {"name": name})
        fire(context, due_at(scheduled))
    with transaction(sessions) as session:
        assert session.scalar(text("SELECT failures FROM triggers")) == 0


def test_daylight_saving_neither_skips_nor_doubles_a_night() -> None:
    def due(year: int, month: int, day: int) -> list[str]:
        moments, at = [], datetime(year, month, day, tzinfo=UTC)
        for _ in range(3):
            at = next_due("30 2 * * *", "Europe/Berlin", at)
            moments.append(at.strftime("%d %H:%M"))
        return moments

    assert due(2026, 3, 28) == ["28 01:30", "29 01:00", "30 00:30"], "2:30 is skipped: right after the gap"
    assert due(2026, 10, 24) == ["24 00:30", "25 00:30", "26 01:30"], "2:30 comes twice: once"


UNMEANT = [
    ({"cron": "every day"}, "5 fields"),
    ({"cron": "61 * * * *"}, "Bad minute"),
    ({"cron": "0 3 * * *", "timezone": "Mars/Olympus"}, "Mars/Olympus"),
    ({"cron": "0 3 * * *", "timezone": "../etc/passwd"}, "no time zone"),
]


def test_a_schedule_that_cannot_be_meant_is_refused(member_api: TestClient, trigger_body: dict[str, Any]) -> None:
    for schedule, says in UNMEANT:
        answer = member_api.post("/v1/triggers", json={**trigger_body, "schedule": schedule})
        assert answer.status_code == 422 and says in answer.json()["detail"], answer.text
        assert answer.json()["param"].startswith("schedule.")
