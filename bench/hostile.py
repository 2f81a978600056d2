"""What hostile and broken clients do to the API: `python -m bench.hostile [--seconds 20]`.

One uvicorn process as in production, a PostgreSQL server of its own. Before, during and after each attack an ordinary
request is timed and the process's resident memory read. Attacks that multiply are judged by the requests of another
team, the memory that stays, and the absence of statuses from 500 on; the exit code is 1 where one is not withstood.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.hostile_attacks import Figures, Target, deep_json, dripping, freezing, long_bodies, watchers
from bench.hostile_multiplying import MODEL, TEXT, Caller, multiplying
from bench.machine import describe_machine
from bench.page import percentile, table
from bench.parts import api_process
from core.database import migrate, new_id, session_factory, transaction
from core.service.jobs.queue import append_event, claim, submitted
from core.service.jobs.schemas import JobBody
from core.service.jobs.tables import JobRow
from core.service.sources.references import FolderModel
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.settings import Settings
from tests.model_folders import write_llama, write_text
from worker.embedded.postgres import postgres

EVENTS, EVENT_BYTES = 500, 16_000
"""More than the kernel's buffers of one connection hold."""
PROBE_SECONDS = 0.05
SLOWER = 3
"""Largest factor by which an attack may slow 95 % of another team's requests."""
MOST_GROWTH = 300 * 2**20 / 1e6
"""Megabytes that an attack may leave in the process, from its start."""
FREEZING = {
    "1 MiB of nested lists": b"[" + b"[[[[]]]]," * (2**20 // 9 - 1) + b"[]]",
    "1 MiB of faults": b'{"metadata":{' + b",".join(b'"%098d":1' % number for number in range(9_900)) + b"}}",
}
"""Bodies that take long to parse: one refused for its number of values, and one just below that number."""


@dataclass
class Probe:
    """An ordinary request and a probe of health, made again and again beside whatever else goes on."""

    target: Target
    pid: int
    milliseconds: list[float] = field(default_factory=list)
    health_milliseconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator["Probe"]:
        stop = threading.Event()
        thread = threading.Thread(target=self._ask, args=(stop,))
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def _ask(self, stop: threading.Event) -> None:
        process = psutil.Process(self.pid)
        headers = {"Authorization": f"Bearer {self.target.key}"}
        base = f"http://{self.target.host}:{self.target.port}"
        asked = (("/v1/team", self.milliseconds), ("/healthz", self.health_milliseconds))
        with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
            while not stop.is_set():
                for path, milliseconds in asked:
                    began = time.perf_counter()
                    try:
                        client.get(path).raise_for_status()
                    except httpx.HTTPError as error:
                        self.failures.append(str(error))
                    milliseconds.append((time.perf_counter() - began) * 1000)
                self.megabytes.append(process.memory_info().rss / 1e6)
                stop.wait(PROBE_SECONDS)


def probed(target: Target, pid: int, attack: Callable[[], Figures]) -> tuple[Probe, Figures]:
    """An attack and how the ordinary request fared meanwhile."""
    with Probe(target, pid).running() as probe:
        figures = attack()
    return probe, figures


def running_job(sessions: Any, team: str) -> str:
    """Id of a job that a worker holds."""
    model = FolderModel(name="m", path=Path("/m"), revision="r")
    with transaction(sessions) as session:
        row = JobRow(
            id=new_id("job"),
            team_id=team,
            attempts_allowed=1,
            body=JobBody(model="m", method="magnitude", sparsity=0.5, pattern="unstructured").model_dump(mode="json"),
            sources={"model": model.model_dump(mode="json"), "calibration": None, "evaluation": []},
            model="m",
            model_revision="r",
            method="magnitude",
            queue="default",
            priority=0,
            labels={},
        )
        submitted(session, row)
    with transaction(sessions) as session:
        assert claim(session, queue="default", worker_id="worker_1", lease_seconds=3600) is not None
    return row.id


def adds_events(sessions: Any, job: str, size: int) -> Callable[[int], None]:
    """Return a function that adds an event of `size` characters, with the number it is given, to a job."""

    def tell(number: int) -> None:
        with transaction(sessions) as session:
            assert append_event(session, job, 1, "log", {"number": number, "message": "x" * size})

    return tell


def attacks(target: Target, sessions: Any, job: str, seconds: float, scale: float) -> dict[str, Callable[[], Figures]]:
    """Every attack by name; `scale` 1 is the whole of it."""
    many = max(int(200 * scale), 5)
    most = 4 * seconds + 20
    longer = 1 if scale == 1 else 4  # as many bytes in fewer events, of which each costs a transaction and a look
    body = target.head("POST", "/v1/jobs", "Content-Type: application/json", "Content-Length: 100000")
    part = target.head("PUT", "/v1/uploads/upload_1/files/a.txt?offset=0", "Content-Length: 100000")

    def ran(attack: Coroutine[Any, Any, Figures]) -> Figures:
        return asyncio.run(attack)

    pause = seconds / 10
    return {
        "bodies of 50 MB": lambda: ran(long_bodies(target, clients=max(int(10 * scale), 4), size=int(50e6))),
        "JSON 10 000 levels deep": lambda: ran(deep_json(target, clients=many, levels=10_000)),
        **{
            f"{name}, {with_key}": lambda body=body, key=key: ran(  # type: ignore[misc]
                freezing(
                    Target(target.host, target.port, key),
                    "/v1/jobs" if key else "/healthz",
                    clients=max(int(20 * scale), 4),
                    body=body,
                    seconds=seconds,
                )
            )
            for name, body in FREEZING.items()
            for with_key, key in (("with a key", target.key), ("without", ""))
        },
        "headers that drip": lambda: ran(
            dripping(target, clients=many, start=b"GET /v1/jobs HTTP/1.1\r\n", drop=b"X: y\r\n", pause=pause, most=most)
        ),
        "silence": lambda: ran(dripping(target, clients=many, start=b"", drop=b"", pause=pause, most=most)),
        "bodies that drip": lambda: ran(
            dripping(target, clients=many, start=body + b"{", drop=b" ", pause=pause, most=most)
        ),
        "a part that drips, refused": lambda: ran(
            dripping(target, clients=many, start=part, drop=b"x", pause=pause, most=most)
        ),
        "watchers, one stalled": lambda: ran(
            watchers(
                target,
                job=job,
                clients=many,
                events=EVENTS if scale == 1 else EVENTS // 8,
                tell=adds_events(sessions, job, EVENT_BYTES * longer),
                most=most + 60,
            )
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="SECATEUR_SLOW_CLIENT_SECONDS of the server")
    parser.add_argument("--only", default="", help="Attacks whose name holds this.")
    arguments = parser.parse_args()
    seconds: float = arguments.seconds
    with tempfile.TemporaryDirectory(prefix="secateur-hostile-") as folder, postgres(Path(folder) / "cluster") as url:
        secret = "of the bench"
        settings = Settings(
            home=Path(folder) / "home", database_url=url, secret_key=secret, slow_client_seconds=seconds
        )
        migrate(settings)
        sessions = session_factory(settings)
        with transaction(sessions) as session:
            team = create_team(session, "gardeners")
            other = create_team(session, "foresters")
            key, honest_key = (
                create_key(session, each, role="admin", name="a", expires_at=None, secret=secret.encode()).key
                for each in (team, other)
            )
        job = running_job(sessions, team)
        with api_process(settings, Path(folder) / "log") as (pid, port):
            target = Target("127.0.0.1", port, key)
            print(f"{describe_machine()}; slow_client_seconds {seconds:g}\n")
            chosen = attacks(target, sessions, job, seconds, 1.0)
            chosen = {name: attack for name, attack in chosen.items() if arguments.only in name}
            if chosen:
                print(report(target, pid, chosen))
            model, numbers = write_llama(settings.models_root / MODEL), write_text(settings.datasets_root / TEXT)
            for kind, path in (("models", model), ("datasets", numbers)):
                added = Caller(target).ask("POST", f"/v1/{kind}", json={"name": path.name, "path": str(path.resolve())})
                assert added is not None, f"{path} is not registered"
            judged = {name: each for name, each in multiplying(target, job).items() if arguments.only in name}
            verdicts, is_withstood = judge(Target(target.host, port, honest_key), pid, judged)
            print(f"\n{verdicts}")
        sessions.kw["bind"].dispose()
    return 0 if is_withstood else 1


def _quiet() -> Figures:
    time.sleep(2)
    return {}


def judge(honest: Target, pid: int, chosen: dict[str, Callable[[], Figures]]) -> tuple[str, bool]:
    """Return a row for each attack with its verdict, and whether all were withstood."""
    rows, is_withstood = [], True
    probed(honest, pid, _quiet)  # warm
    start, _ = probed(honest, pid, _quiet)
    quiet = list(start.milliseconds)
    for name, attack in chosen.items():
        before, _ = probed(honest, pid, _quiet)
        quiet += before.milliseconds
        during, figures = probed(honest, pid, attack)
        after, _ = probed(honest, pid, _quiet)
        p95, usual = (percentile(each, 0.95) for each in (during.milliseconds, quiet))
        growth = min(after.megabytes) - statistics.median(start.megabytes)
        faults = {
            f"{p95 / usual:.1f} × quiet": p95 > SLOWER * usual,
            f"{len(during.failures)} honest requests failed": bool(during.failures),
            f"{growth:.0f} MB stay": growth > MOST_GROWTH,
            "5xx": any(outcome.rpartition(" ")[2].startswith("5") for outcome in figures if outcome[-3:].isdigit()),
        }
        broken = [fault for fault, is_broken in faults.items() if is_broken]
        is_withstood = is_withstood and not broken
        rows.append(
            [
                name,
                ", ".join(f"{what}: {count}" for what, count in figures.items()),
                f"{usual:.1f} / {p95:.1f}",
                f"{max(during.megabytes):.0f} / {growth:+.0f}",
                "; ".join(broken) or "withstood",
            ]
        )
        print(f"{name}: done", file=sys.stderr)
    header = ["attack", "what became of it", "p95 ms quiet / attack", "resident MB most / stays", "verdict"]
    return table(header, rows), is_withstood


def report(target: Target, pid: int, chosen: dict[str, Callable[[], Figures]]) -> str:
    """A row for each attack: memory and latency before, during and after, and what became of it."""
    rows = []
    probed(target, pid, _quiet)  # warm
    for name, attack in chosen.items():
        before, _ = probed(target, pid, _quiet)
        during, figures = probed(target, pid, attack)
        after, _ = probed(target, pid, _quiet)
        memory = [statistics.median(before.megabytes), max(during.megabytes), statistics.median(after.megabytes)]
        rows.append(
            [
                name,
                ", ".join(f"{what}: {count}" for what, count in figures.items()),
                " / ".join(f"{each:.0f}" for each in memory),
                " / ".join(f"{statistics.median(each.milliseconds):.1f}" for each in (before, during, after)),
                " / ".join(f"{percentile(each.milliseconds, 0.99):.1f}" for each in (before, during, after)),
                " / ".join(f"{percentile(each.health_milliseconds, 0.99):.1f}" for each in (before, during, after)),
                f"{max(during.milliseconds):.0f}",
                str(len(during.failures)),
            ]
        )
        print(f"{name}: done", file=sys.stderr)
    latencies = ["p50 ms", "p99 ms", "/healthz p99 ms", "longest ms"]
    header = ["attack", "what became of it", "resident MB", *latencies, "failed"]
    return table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
