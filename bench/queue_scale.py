"""The queue of record with a million finished jobs and a hundred thousand that wait: `python -m bench.queue_scale`.

Prints how long claim, list and submit take, alone and under load, and which indexes the statements of claim and submit
read; fails where one of them reads a large table from end to end. With `--duties` it looks so at every list and duty in
place of that. The page docs/scale.md carries the figures on.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from bench.machine import describe_machine
from bench.page import milliseconds
from bench.queue_scale_duties import measure_duties, measure_lists, show_costs, show_faults
from bench.queue_scale_load import Load, run_load
from bench.queue_scale_plans import Plan, explain
from bench.queue_scale_tables import DATA, fill, fill_tables, job_body, without_indexes
from core.database import migrate, session_factory, transaction
from core.database_url import libpq_url
from core.pagination import cursor_of
from core.service.jobs import queue, service
from core.service.jobs.listing import ORDERS, SORTS, JobFilters
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.tables import JobRow
from core.settings import Settings
from core.storage import open_store
from secateur_wire.errors import InvalidRequest
from secateur_wire.jobs import JobSort
from worker.embedded.postgres import postgres

SERVER = {"max_connections": "300", "shared_buffers": "1GB", "max_wal_size": "8GB"}
"""Settings of PostgreSQL that are not its defaults; commits wait for the disk."""
SHOWN = ("server_version", *SERVER, "fsync", "synchronous_commit", "random_page_cost", "jit")

LOOKS = 20
"""Number of looks of each kind; the first fills caches and does not count."""
FILTERS: dict[str, JobFilters] = DATA["filters"]
console = Console(width=160)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.queue_scale", description=__doc__)
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--teams", type=int, default=50)
    parser.add_argument("--claimers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument(
        "--duties", action="store_true", help="only the duties of the dispatcher and the lists, with every table full"
    )
    parser.add_argument("--folder", help="where the database lies meanwhile; a folder of the system's for such files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secateur-bench-", dir=arguments.folder) as name:
        folder = Path(name).resolve()
        with postgres(folder / "postgres") as url:
            _configure(url)
        with postgres(folder / "postgres") as url:  # some settings need a fresh start
            settings = Settings(home=folder / "home", database_url=url, secret_key="bench", worker_fresh_seconds=60)
            return _measure(settings, arguments)


def _configure(url: str) -> None:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        for setting, value in SERVER.items():
            connection.execute(f"ALTER SYSTEM SET {setting} = '{value}'")


def _measure(settings: Settings, arguments: argparse.Namespace) -> int:
    migrate(settings)
    sessions = session_factory(settings)
    begun = time.monotonic()
    filling = session_factory(settings, "migration")  # which may take its time
    with without_indexes(filling):
        teams = fill(filling, settings, teams=arguments.teams, finished=arguments.finished, queued=arguments.queued)
        if arguments.duties:
            fill_tables(filling, teams, arguments.finished)
    filling.kw["bind"].dispose()
    console.print(
        f"{describe_machine()}; load {os.getloadavg()[0]:.1f} before; filled in {time.monotonic() - begun:.0f} s"
    )
    console.print(_facts(sessions))
    if arguments.duties:
        return _measure_duties(settings, teams, most_rows=max(5000, arguments.finished // 20))
    plans = _plans(sessions, settings, teams[0])
    _show_plans(plans)
    show_lists(console, sessions, teams[0])
    _show_loads(settings, teams, arguments)
    console.print(f"load {os.getloadavg()[0]:.1f} after")
    sessions.kw["bind"].dispose()
    scanned = {name: found for name, found in plans.items() if any(plan.scanned for plan in found)}
    for name, found in scanned.items():
        console.print(f"{name} reads a large table from end to end:", *(plan.sql for plan in found if plan.scanned))
    return 1 if scanned else 0


def _measure_duties(settings: Settings, teams: list[str], *, most_rows: int) -> int:
    """Print the costs of duties and lists; 1 where one reads a large table, 0 otherwise."""
    sessions = session_factory(settings, "dispatcher")
    costs = {
        "duty": measure_duties(sessions, settings, teams),
        "list": measure_lists(sessions, settings, teams),
    }
    for title, found in costs.items():
        show_costs(console, title, found)
    sessions.kw["bind"].dispose()
    faults = [show_faults(console, found, most_rows) for found in costs.values()]
    return int(any(faults))


def _facts(sessions: sessionmaker[Session]) -> str:
    with sessions() as session:
        shown = [f"{name} {session.execute(text(f'SHOW {name}')).scalar_one()}" for name in SHOWN]
        sizes = session.execute(
            text(
                "SELECT relname, n_live_tup, pg_size_pretty(pg_total_relation_size(relid)) FROM pg_stat_user_tables"
                " WHERE n_live_tup > 10000 ORDER BY relname"
            )
        )
        tables = [f"{name} {rows} rows, {size}" for name, rows, size in sizes]
    return f"PostgreSQL: {', '.join(shown)}\nTables: {'; '.join(tables)}"


def _plans(sessions: sessionmaker[Session], settings: Settings, team: str) -> dict[str, list[Plan]]:
    store = open_store(settings)
    calls = {
        "claim": lambda session: queue.claim(session, queue="default", worker_id="worker_1", lease_seconds=60),
        "submit": lambda session: service.submit(RequestContext(session, team, store, settings), job_body()),
    }
    return {name: explain(sessions, call) for name, call in calls.items()}


def show_lists(console: Console, sessions: sessionmaker[Session], team: str) -> None:
    """Print the milliseconds of a page: the first of each kind, and in each order one from the middle. A search that is
    too broad for an order is refused.
    """
    table = Table("filter", *SORTS, title="Lists of jobs: p50 / p99 ms of a page of 25")
    with transaction(sessions) as session:
        jobs = select(JobRow).where(JobRow.team_id == team)
        count = session.scalar(select(func.count()).select_from(jobs.subquery())) or 0
        middle = session.scalars(jobs.order_by(JobRow.created_at).offset(count // 2).limit(1)).one()
    for name, filters in FILTERS.items():
        table.add_row(name, *(_timed(sessions, team, sort, filters) for sort in SORTS))
    middles = (_timed(sessions, team, sort, {}, cursor_of(ORDERS[sort], middle)) for sort in SORTS)
    table.add_row("all, from the middle", *middles)
    console.print(table)


def _timed(
    sessions: sessionmaker[Session], team: str, sort: JobSort, filters: JobFilters, after: str | None = None
) -> str:
    taken = []
    is_refused = ""
    for _ in range(LOOKS):
        begun = time.monotonic()
        try:
            with transaction(sessions) as session:
                service.list_jobs(session, team, limit=25, after=after, sort=sort, **filters)
        except InvalidRequest:
            is_refused = " (refused)"
        taken.append(1000 * (time.monotonic() - begun))
    ordered = sorted(taken[1:])
    return f"{ordered[len(ordered) // 2]:.0f} / {ordered[-1]:.0f}{is_refused}"


def _show_plans(plans: dict[str, list[Plan]]) -> None:
    table = Table("call", "ms", "pages", "indexes", title="Plans: each call's statements, run one by one")
    for name, found in plans.items():
        indexes = sorted({index for plan in found for index in plan.indexes})
        milliseconds, buffers = sum(plan.milliseconds for plan in found), sum(plan.buffers for plan in found)
        table.add_row(name, f"{milliseconds:.2f}", str(buffers), ", ".join(indexes))
    console.print(table)


def _show_loads(settings: Settings, teams: list[str], arguments: argparse.Namespace) -> None:
    claimers, seconds = arguments.claimers, arguments.seconds
    loads = {
        "1 claimer": Load(claimers=1, pause=0, clients=0, seconds=seconds / 2),
        "1 client": Load(claimers=0, pause=0, clients=1, seconds=seconds / 2),
        "20 clients": Load(claimers=0, pause=0, clients=20, seconds=seconds / 2),
        f"{claimers} claimers, a job a minute each, 20 clients": Load(claimers, pause=60, clients=20, seconds=seconds),
        f"{claimers} claimers without a pause": Load(claimers, pause=0, clients=0, seconds=seconds),
        f"{claimers} claimers without a pause, 20 clients": Load(claimers, pause=0, clients=20, seconds=seconds),
        "50 writers of progress": Load(50, pause=0, clients=0, seconds=seconds / 2, progress=True),
    }
    table = Table("load", "call", "a second", "p50 ms", "p99 ms", "most ms", title="Calls, with their commit")
    for name, load in loads.items():
        for call, times in run_load(settings, teams, load).items():
            table.add_row(name, call, f"{len(times) / load.seconds:.0f}", *milliseconds(times))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
