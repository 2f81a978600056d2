"""What open streams of job pages cost: the API's memory and processor time, and what others wait meanwhile."""

import asyncio
import random
import socket
import threading
import time
from argparse import Namespace
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import psutil

from bench.page import milliseconds, table
from core.database import transaction
from core.service.jobs.queue import append_event, claim, heartbeat, set_progress

if TYPE_CHECKING:
    from bench.portal import Portal

_WORKER = "worker_1"
_BACKLOG = 2000
"""Log lines of the job whose reader reads nothing: more than any buffer on the way holds."""
_LINE = "x" * 2000


def measure_streams(portal: "Portal", client: httpx.Client, asked: Namespace) -> str:
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


def _run(portal: "Portal", count: int) -> list[str]:
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
    """How long each look at the list took, ten a second at most."""
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

    def __init__(self, portal: "Portal", jobs: list[str], rate: float) -> None:
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
