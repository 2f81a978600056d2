"""Jobs in every order, looked through forwards and backwards, and found by what is written in them."""

import json
import random
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import md5
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from bench.queue_scale_plans import explained, nodes_of
from core.database import session_factory, transaction
from core.pagination import Listing, Window, cursor_of, read_window
from core.service.jobs.listing import ORDERS, SORTS, JobFilters, matching, words_condition
from core.service.jobs.states import STATUSES
from core.service.jobs.tables import JobRow
from core.service.teams.bootstrap import create_team
from core.settings import Settings
from secateur_wire.errors import InvalidRequest
from secateur_wire.jobs import JobSort
from tests.databases import fresh_database
from tests.job_rows import job_row

_START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def _row(team_id: str, **fields: Any) -> JobRow:
    usual = {"sources": {}, "model": "oak", "method": "wanda", "created_at": _START}
    return job_row(team_id, **usual | fields)


@pytest.fixture
def grove(sessions: sessionmaker[Session], team: str) -> list[JobRow]:
    """Jobs that share models, methods, states and times."""
    chance = random.Random(0)
    ended = ("succeeded", "failed")
    rows = []
    for _ in range(23):
        status = chance.choice(("queued", *ended))
        rows.append(
            _row(
                team,
                model=chance.choice(("oak", "elm", "日本" * 150)),
                method=chance.choice(("wanda", "magnitude")),
                status=status,
                created_at=_START + timedelta(microseconds=chance.randrange(6)),
                finished_at=_START + timedelta(hours=chance.randrange(3)) if status in ended else None,
            )
        )
    with transaction(sessions) as session:
        session.add_all(rows)
        session.flush()
        session.expunge_all()
    return rows


EXPECTED: dict[JobSort, Callable[[JobRow], Any]] = {
    "newest": lambda row: 0,
    "oldest": lambda row: 0,
    "model": lambda row: row.model,
    "method": lambda row: row.method,
    "status": lambda row: STATUSES.index(row.status),
    "finished": lambda row: (row.finished_at is None, -(row.finished_at or _START).timestamp()),
}


def _look(session: Session, team: str, sort: JobSort, **where: Any) -> Window[str]:
    where = {"limit": 4, "after": None, "before": None} | where
    listing = Listing(matching(team, {}), JobRow, lambda row: row.id, ORDERS[sort])
    return read_window(session, listing, **where)


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_is_looked_through_both_ways_without_a_gap(
    sessions: sessionmaker[Session], team: str, grove: list[JobRow], sort: JobSort
) -> None:
    by_age = sorted(grove, key=lambda row: (row.created_at, row.id), reverse=sort != "oldest")
    expected = [row.id for row in sorted(by_age, key=EXPECTED[sort])]
    with transaction(sessions) as session:
        windows = [_look(session, team, sort)]
        while windows[-1].after is not None:
            windows.append(_look(session, team, sort, after=windows[-1].after))
        assert [each for window in windows for each in window.data] == expected
        assert windows[0].before is None and len(windows) == 6
        for earlier, later in pairwise(windows):
            back = _look(session, team, sort, before=later.before)
            assert back == earlier


def test_a_cursor_counts_in_its_own_order_only(sessions: sessionmaker[Session], team: str, grove: list[JobRow]) -> None:
    with transaction(sessions) as session:
        cursor = _look(session, team, "newest").after
        with pytest.raises(InvalidRequest, match="a list sorted by 'newest', not by 'model'"):
            _look(session, team, "model", after=cursor)
        when = "2026-03-02T09:30:00+00:00"
        places = (
            ["newest", None, "now", "job_1"],
            ["newest", "oak", when, "job_1"],
            ["newest", None, when, "\0"],
            ["newest", None, when, "\ud800"],
            None,
        )
        written = [urlsafe_b64encode(json.dumps(place).encode()).decode() for place in places]
        for nonsense in ("", "é", "W1tbW1tb" * 300, *written):
            with pytest.raises(InvalidRequest, match="not a cursor of this list"):
                _look(session, team, "newest", after=nonsense)


def test_a_search_finds_the_jobs_in_which_every_word_begins_one(
    sessions: sessionmaker[Session], team: str, other_team: str
) -> None:
    oak = _row(team, model="org/Oak-7B", labels={"commit": "abc", "100%": "half_done"})
    elm = _row(team, model="elm", method="sparsegpt", labels={"note": "Straße 100%"})
    other = _row(other_team, model="oak")
    with transaction(sessions) as session:
        session.add_all([oak, elm, other])
        session.flush()

        def found(search: str) -> set[str]:
            return {*look_in(session, team, "newest", {"search": search})}

        assert found("oak") == found("OAK wand ABC") == found(f"{oak.id[4:].upper()} org/") == {oak.id}
        assert found("oak-7b") == found("7") == found("half_done") == found("done") == {oak.id}
        assert found("straße") == found("100% elm") == found("spars") == {elm.id}
        assert found("") == found("  ") == found("job_") == {oak.id, elm.id}
        assert found("oak sparsegpt") == found("ak") == found("alf") == found("commit") == found("%") == set()
        assert found("team") == found(team) == found("'oak' | elm") == found("\\") == set()


PAGE = 25
MANY = 4000


@dataclass
class Forest:
    """Thousands of jobs of each of two teams, of which tests are the first. They only read."""

    sessions: sessionmaker[Session]
    team: str


@pytest.fixture(scope="module")
def forest(postgres_url: str) -> Iterator[Forest]:
    many = """
        INSERT INTO jobs (id, team_id, status, attempts_allowed, body, sources, model, model_revision, method, queue,
            priority, metadata, created_at, finished_at)
        SELECT 'job_' || team || n, team, (ARRAY['succeeded', 'failed', 'queued'])[1 + n % 3], 3, '{}', '{}',
            'model-' || n % 40, '', (ARRAY['wanda', 'magnitude'])[1 + n % 2], 'default', 0,
            jsonb_build_object('commit', md5(n::text)), now() - make_interval(secs => n),
            CASE WHEN n % 3 < 2 THEN now() - make_interval(secs => n / 2) END
        FROM generate_series(1, :many) AS n CROSS JOIN unnest(ARRAY[:team, :other_team]) AS team
    """
    with fresh_database(postgres_url) as url:
        sessions = session_factory(Settings(database_url=url))
        with transaction(sessions) as session:
            team, other_team = create_team(session, "gardeners"), create_team(session, "foresters")
            session.execute(text(many), {"many": MANY, "team": team, "other_team": other_team})
        with sessions.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE jobs"))
        yield Forest(sessions, team)
        sessions.kw["bind"].dispose()


LOOKS: dict[str, JobFilters] = {
    "all": {},
    "a method": {"method": "wanda"},
    "a word most have": {"search": "model"},
    "a word one has": {"search": md5(b"77").hexdigest()[:12]},
    "a word none has": {"search": "nothing"},
}


def look_in(
    session: Session, team: str, sort: JobSort, filters: JobFilters, *, limit: int = PAGE, after: str | None = None
) -> list[str]:
    listing = Listing(matching(team, filters), JobRow, lambda row: row.id, ORDERS[sort], words_condition(team, filters))
    window = read_window(session, listing, limit=limit, after=after, before=None)
    return window.data


@pytest.mark.parametrize("sort", SORTS)
def test_no_page_reads_all_jobs(forest: Forest, sort: JobSort) -> None:
    """Pages from the beginning, and from the middle; the rows that are read and passed over are counted too."""
    with transaction(forest.sessions) as session:
        middle = session.scalars(select(JobRow).where(JobRow.team_id == forest.team).offset(MANY // 2).limit(1)).one()
        for name, filters in LOOKS.items():
            for after in (None, cursor_of(ORDERS[sort], middle)):
                plans = explained(
                    session,
                    partial(look_in, team=forest.team, sort=sort, filters=filters, after=after),
                )
                read = sum(
                    (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                    for _, plan in plans
                    for node in nodes_of(plan["Plan"])
                    if node["Node Type"].endswith("Scan") and node["Node Type"] != "Bitmap Index Scan"
                )
                assert read < MANY / 2, (name, after)


def test_a_search_that_would_read_too_much_is_refused_and_says_how_it_is_narrowed(
    forest: Forest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.pagination._MOST_MATCHES", MANY // 4)
    with transaction(forest.sessions) as session:
        assert len(look_in(session, forest.team, "newest", {"search": "wanda"})) == PAGE, "every other job has it"
        with pytest.raises(InvalidRequest, match=f"more than {MANY // 4} .* add a word or a filter, or choose another"):
            look_in(session, forest.team, "method", {"search": "wanda"})  # after all of magnitude
        assert len(look_in(session, forest.team, "method", {"search": "wanda", "method": "wanda"})) == PAGE
        assert len(look_in(session, forest.team, "method", {"search": "wanda 7"})) == PAGE
