"""The portal with ten thousand jobs in the table, and with hundreds of pages that follow one:
`python -m bench.portal [--jobs 10000] [--streams 200]`.

A real API process on real PostgreSQL. Prints how long the first byte of each page takes, when Chromium first paints it,
and, with `--streams`, what open streams cost the API and others; `bench.queue_scale` says what lists cost the database.
Where the processes share the machine with other work, the figures are worth nothing.
"""

import argparse
import asyncio
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from sqlalchemy.orm import Session, sessionmaker

from bench.browser import chromium
from bench.machine import describe_machine
from bench.page import milliseconds, percentile, table
from bench.parts import api_process
from bench.queue_scale_fill import fill
from core.database import migrate, session_factory, transaction
from core.service.jobs.listing import SORTS
from core.service.jobs.queue import append_event, claim, heartbeat, set_progress
from core.service.teams.keys import create_key
from core.settings import Settings
from worker.embedded.postgres import postgres

_SECRET = "a secret for a bench"
_SEARCHES = {"a search that finds one": "c4ca4238", "a search that finds nothing": "nothing-like-it"}
_REPEATS = 30
_PAINTS = 10
_WORKER = "worker_1"
_BACKLOG = 2000
"""Log lines of the job whose reader reads nothing: more than any buffer on the way holds."""
_LINE = "x" * 2000
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


def measure_streams(portal: Portal, client: httpx.Client, asked: argparse.Namespace) -> str:
    """`asked.streams` readers of a running job each, `asked.events` events a second among the jobs, one more reader
    who reads nothing of a long log; beside them somebody looks at the list, over and over.
    """
    jobs = _run(portal, asked.streams + 1)
    for _ in range(_BACKLOG // 100):
        with transaction(portal.sessions) as session:
            for _ in range(100):
                append_event(session, jobs[0], 1, "log", {"level": "info", "message": _LINE})
    api = psutil.Process(portal.api)
    alone, quiet = _look(client, asked.seconds), _Use(api)
    readers = _Readers(portal.url, client, [asked.stream.format(id=job) for job in jobs[1:]])
    silent = _reads_nothing(portal.url, client, asked.stream.format(id=jobs[0]))
    try:
        readers.wait_until_open()
        idle = _Use(api)
        time.sleep(min(5.0, asked.seconds))
        idle_share = idle.share()
        busy, known = _Use(api), readers.received
        with _Publisher(portal, jobs[1:], asked.events) as publisher:
            beside = _look(client, asked.seconds)
        busy_share = busy.share()
        time.sleep(2)
    finally:
        readers.close()
        silent.close()
    rows = [
        [f"list of jobs, {what}", str(len(times)), *milliseconds(times)]
        for what, times in (("nobody else there", alone), ("with the streams", beside))
    ]
    return "\n".join(
        [
            table(["what", "requests", "p50 ms", "p99 ms", "most ms"], rows),
            "",
            f"streams: {readers.opened} open, and one whose reader reads nothing; ended early: {readers.ended}",
            f"messages received: {readers.received - known}; events published: {publisher.published}",
            f"API memory: {quiet.resident / 2**20:.0f} MiB before, {idle.resident / 2**20:.0f} MiB with streams open, "
            f"{_Use(api).resident / 2**20:.0f} MiB at the end",
            f"API processor: {100 * idle_share:.1f} % of a core with streams open and no event, "
            f"{100 * busy_share:.1f} % with events and the list",
        ]
    )


def _run(portal: Portal, count: int) -> list[str]:
    """Ids of so many jobs, which a worker holds from now on."""
    found = []
    with transaction(portal.sessions) as session:
        heartbeat(session, _WORKER, queue="default", device="cpu", hostname="bench", pid=1)
    for _ in range(count):
        with transaction(portal.sessions) as session:
            claimed = claim(session, queue="default", worker_id=_WORKER, lease_seconds=3600)
        assert claimed is not None, "too few jobs wait"
        found.append(claimed.job_id)
    return found


class _Use:
    """A process's memory when this was made, and the share of a core it has used since."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.resident = process.memory_info().rss
        self._began, self._used = time.monotonic(), sum(process.cpu_times()[:2])

    def share(self) -> float:
        return (sum(self._process.cpu_times()[:2]) - self._used) / (time.monotonic() - self._began)


def _look(client: httpx.Client, seconds: float) -> list[float]:
    """Return the seconds that each look at the list took; there are at most ten looks a second."""
    times = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.perf_counter()
        client.get("/portal/jobs").raise_for_status()
        times.append(time.perf_counter() - started)
        time.sleep(max(0.0, 0.1 - times[-1]))
    return times


class _Readers:
    """Streams read in a thread of their own until they are closed. A message is what stands before an empty line,
    comments that keep a connection alive apart.
    """

    def __init__(self, url: str, client: httpx.Client, addresses: list[str]) -> None:
        self.opened = self.received = self.ended = 0
        self._failures: Counter[str] = Counter()
        self._wanted = len(addresses)
        self._headers = _as_browser(client)
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._read_all(url, addresses),))
        self._thread.start()

    def wait_until_open(self) -> None:
        until = time.monotonic() + 60
        while self.opened < self._wanted:
            if self._failures or time.monotonic() > until:
                self.close()
                raise RuntimeError(f"{self.opened} of {self._wanted} streams opened; answered: {dict(self._failures)}")
            time.sleep(0.05)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    async def _read_all(self, url: str, addresses: list[str]) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(base_url=url, headers=self._headers, limits=limits, timeout=None) as streams:
            reading = [asyncio.create_task(self._read(streams, address)) for address in addresses]
            await self._closing.wait()
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _read(self, streams: httpx.AsyncClient, address: str) -> None:
        async with streams.stream("GET", address) as answer:
            kind = answer.headers.get("content-type", "").partition(";")[0]
            if answer.status_code != 200 or kind != "text/event-stream":
                self._failures[f"{answer.status_code} {kind}"] += 1
                return
            self.opened += 1
            has_data = False
            async for line in answer.aiter_lines():
                has_data = has_data or line.startswith("data")
                if not line and has_data:
                    self.received, has_data = self.received + 1, False
            self.ended += 1


def _as_browser(client: httpx.Client) -> dict[str, str]:
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)
    return {"Accept": "text/event-stream", "Cookie": cookies, "Authorization": client.headers["Authorization"]}


def _reads_nothing(url: str, client: httpx.Client, address: str) -> socket.socket:
    """A connection that asked for a stream, and never takes what comes."""
    at = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((at.hostname, at.port))
    lines = [f"GET {address} HTTP/1.1", f"Host: {at.netloc}"]
    lines += [f"{name}: {value}" for name, value in _as_browser(client).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


class _Publisher:
    """Writes events of the jobs, at a rate, in a thread of its own, while held as a context."""

    def __init__(self, portal: Portal, jobs: list[str], rate: float) -> None:
        self.published = 0
        self._portal, self._jobs, self._pause = portal, jobs, 1 / rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> "_Publisher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _publish(self) -> None:
        chance = random.Random(0)
        due = time.monotonic()
        while not self._ended.is_set():
            with transaction(self._portal.sessions) as session:
                set_progress(session, chance.choice(self._jobs), 1, chance.random(), {"block": 1, "blocks": 30})
            self.published += 1
            due += self._pause
            self._ended.wait(max(0.0, due - time.monotonic()))


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
                print(first_bytes(client, pages), "", sep="\n", flush=True)
                print(first_paints(portal, [*pages[:2], pages[-1]]), flush=True)
                if asked.streams:
                    print("", measure_streams(portal, client, asked), sep="\n", flush=True)
        print(f"load {os.getloadavg()[0]:.1f} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
