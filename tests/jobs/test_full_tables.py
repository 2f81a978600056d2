"""Duties of the dispatcher on tables that are full of what none of them is about."""

import pytest
from sqlalchemy.orm import Session, sessionmaker

from bench.queue_scale_duties import measure_duties
from bench.queue_scale_tables import fill, fill_tables, without_indexes
from core.service.webhooks import delivery_loop
from core.settings import Settings

ROWS = 2000


def test_no_duty_reads_what_it_has_nothing_to_do_with(
    sessions: sessionmaker[Session], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_loop, "IDLE_LOOKS", 0)
    monkeypatch.setattr(delivery_loop, "LOOK_SECONDS", 0.01)
    with without_indexes(sessions):
        teams = fill(sessions, settings, teams=3, finished=ROWS, queued=10)
        fill_tables(sessions, teams, ROWS)
    costs = measure_duties(sessions, settings, teams)
    read = {name: plan for name, cost in costs.items() for plan in cost.plans if plan.scanned or plan.rows > ROWS / 4}
    assert not read
    assert {"webhooks", "retention", "old events", "silent workers", "orphans"} <= costs.keys()
