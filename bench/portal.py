"""The portal with ten thousand jobs in the table, and with hundreds of pages that follow one:
`python -m bench.portal [--jobs 10000] [--streams 200]`.

A real API process on real PostgreSQL. Prints what each page's statements cost the database, how long the first byte of
each page takes, when Chromium first paints it, and, with `--streams`, what open streams cost the API and others. Where
the processes share the machine with other work, the figures are worth nothing.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy.orm import Session, sessionmaker

from bench.browser import chromium
from bench.machine import describe_machine
from bench.page import milliseconds, percentile, table
from bench.parts import api_process
from bench.portal_streams import measure_streams
from bench.queue_scale_fill import fill
from bench.queue_scale_plans import explain
from core.database import migrate, session_factory, transaction
from core.service.jobs import service
from core.service.jobs.listing import SORTS, JobFilters
from core.service.teams.keys import create_key
from core.settings import Settings
from secateur_wire.jobs import JobSort
from worker.embedded.postgres import postgres

_SECRET = "a secret for a bench"
_SEARCHES = {"a search that finds one": "c4ca4238", "a search that finds nothing": "nothing-like-it"}
_REPEATS = 30
_PAINTS = 10
_FIRST_PAINT = """new Promise((resolve) => {
  const told = (paints) => resolve(paints.getEntries()[0].startTime);
  new PerformanceObserver(told).observe({ type: "paint", buffered: true });
})"""


@dataclass(frozen=True)
class Portal:
    """A running API (its process id), a team with jobs, and an admin's key of it."""

    url: str
    key: str
    team: str
    api: int
    sessions: sessionmaker[Session]


@contextmanager
def serving(folder: Path, *, jobs: int, waiting: int) -> Iterator[Portal]:
    """So many jobs that ended and so many that wait, all of one team."""
    with postgres(folder / "postgres") as database:
        settings = Settings(home=folder / "home", database_url=database, secret_key=_SECRET)
        migrate(settings)
        sessions = session_factory(settings)
        (team,) = fill(sessions, settings, teams=1, finished=jobs, queued=waiting)
        with transaction(sessions) as session:
            secret = _SECRET.encode()
            key = create_key(session, team, role="admin", name="bench", expires_at=None, secret=secret).key
        with api_process(settings, folder / "api.log") as (pid, port):
            yield Portal(f"http://127.0.0.1:{port}", key, team, pid, sessions)
        sessions.kw["bind"].dispose()


def statements(portal: Portal) -> str:
    """What each list costs the database: milliseconds, buffers, indexes."""
    calls: dict[str, tuple[JobSort, JobFilters]] = {f"by {sort}": (sort, {}) for sort in SORTS}
    calls |= {name: ("newest", {"search": words}) for name, words in _SEARCHES.items()}
    calls["a search in another order"] = ("model", {"search": "wanda model-1"})
    rows = []
    for name, (sort, filters) in calls.items():

        def first(session: Session, sort: JobSort = sort, filters: JobFilters = filters) -> object:
            return service.look_through_jobs(
                session, portal.team, limit=25, after=None, before=None, sort=sort, **filters
            )

        explain(portal.sessions, first)  # once before, so that all is read from memory
        plans = explain(portal.sessions, first)
        indexes = sorted({index for plan in plans for index in plan.indexes}) or ["none: the table is read"]
        milliseconds, buffers = sum(plan.milliseconds for plan in plans), sum(plan.buffers for plan in plans)
        rows.append([name, ", ".join(indexes), f"{milliseconds:.1f}", str(buffers)])
    return table(["list", "by", "ms", "pages"], rows)


def first_bytes(client: httpx.Client, pages: Sequence[tuple[str, str]]) -> str:
    """From the request to the first byte of the answer."""
    rows = []
    for name, address in pages:
        times = []
        for _ in range(_REPEATS + 1):
            started = time.perf_counter()
            with client.stream("GET", address) as answer:
                times.append(time.perf_counter() - started)
                answer.read()
            assert answer.status_code == 200, (address, answer.status_code)
        rows.append([name, address[:60], *milliseconds(times[1:])])
    return table(["page", "address", "p50 ms", "p99 ms", "most ms"], rows)


def first_paints(portal: Portal, pages: Sequence[tuple[str, str]]) -> str:
    """In Chromium, from the navigation to the first paint, styles and scripts cached as they are for whoever was here
    before.
    """
    rows = []
    with chromium() as browser:
        context = browser.new_context(base_url=portal.url, viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.goto("/portal/sign-in")
        page.get_by_label("API key").fill(portal.key)
        page.keyboard.press("Enter")
        page.wait_for_url("**/portal/jobs")
        for name, address in pages:
            paints = []
            for _ in range(_PAINTS + 1):
                page.goto(address)
                paints.append(page.evaluate(_FIRST_PAINT) / 1000)
            rows.append([name, address[:60], *(f"{1000 * percentile(paints[1:], share):.0f}" for share in (0.5, 1))])
    return table(["page", "address", "p50 ms", "most ms"], rows)


def _pages(client: httpx.Client) -> list[tuple[str, str]]:
    first = client.get("/v1/jobs", params={"limit": 25}).json()
    middle = client.get("/v1/jobs", params={"limit": 200, "sort": "oldest"}).json()["next_after"]
    compared = "&".join(f"job={job['id']}" for job in first["data"][:20])
    return [
        ("jobs, newest first", "/portal/jobs"),
        ("jobs, the next page", f"/portal/jobs?after={first['next_after']}"),
        ("jobs, oldest first, the ninth page", f"/portal/jobs?sort=oldest&after={middle}"),
        *((f"jobs by {sort}", f"/portal/jobs?sort={sort}") for sort in SORTS[2:]),
        ("jobs that failed", "/portal/jobs?status=failed"),
        *((f"jobs, {name}", f"/portal/jobs?search={words}") for name, words in _SEARCHES.items()),
        ("twenty jobs compared", f"/portal/compare?{compared}"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.portal", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="that ended")
    parser.add_argument("--streams", type=int, default=0, help="pages of running jobs that are open at once")
    parser.add_argument("--seconds", type=float, default=20, help="how long they are looked at")
    parser.add_argument("--events", type=float, default=20, help="a second, of all running jobs together")
    parser.add_argument("--stream", default="/portal/jobs/{id}/stream", help="the address of a job's stream")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secateur-bench-") as name:
        print(f"{describe_machine()}; load {os.getloadavg()[0]:.1f} before", flush=True)
        with serving(Path(name), jobs=asked.jobs, waiting=max(100, asked.streams + 1)) as portal:
            headers = {"Authorization": f"Bearer {portal.key}"}
            with httpx.Client(base_url=portal.url, headers=headers, timeout=60) as client:
                client.post("/portal/sign-in", data={"key": portal.key})
                pages = _pages(client)
                print(statements(portal), "", first_bytes(client, pages), "", sep="\n", flush=True)
                print(first_paints(portal, [*pages[:2], pages[-1]]), flush=True)
                if asked.streams:
                    print("", measure_streams(portal, client, asked), sep="\n", flush=True)
        print(f"load {os.getloadavg()[0]:.1f} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
