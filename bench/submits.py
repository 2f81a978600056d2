"""A submission alone, without anything that runs jobs beside it: `python -m bench.submits`.

Says what one costs (statements, transactions, changes of thread and CPU, counted within one process), and how long it
takes over HTTP, with one client and with many, while the queue's history is long enough for estimates to learn from.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio.to_thread
import psutil
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, text

from api.app import create_app
from bench.load import Crowd
from bench.load_fleet import MODEL, Fleet
from bench.machine import describe_machine
from bench.page import milliseconds, table
from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.estimates.resources import FIGURES

METHOD = "magnitude"
BODY = {"model": MODEL, "method": METHOD, "sparsity": 0.5}
HISTORY = 200
"""Jobs that have run to their end before: as many as an estimate looks at."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.submits", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="of each load")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rate", type=float, default=20, help="jobs a second of all clients together")
    asked = parser.parse_args()
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="secateur-submits-") as folder, Fleet(Path(folder), 0) as fleet:
        keys = fleet.keys(4, asked.clients)
        _load(fleet, keys, HISTORY, 0)
        _end_all(fleet)
        print(_cost(fleet, keys[0]), flush=True)
        loads = {
            "one client": (keys[:1], asked.jobs // 2, 0.0),
            f"{asked.clients} clients, {asked.rate:g} jobs a second": (keys, asked.jobs, asked.rate),
            f"{asked.clients} clients, as fast as they can": (keys, asked.jobs, 0.0),
        }
        rows = [[name, *_load(fleet, *load)] for name, load in loads.items()]
        header = ["load", "jobs", "a second", "p50 ms", "p99 ms", "most ms", "CPU ms", "commits", "connections made"]
        print(table(header, rows, text_columns=1))
    return 0


def _load(fleet: Fleet, keys: list[str], jobs: int, rate: float) -> list[str]:
    """Submit so many jobs. CPU is the API's, and commits are the database's, for each job."""
    api = psutil.Process(fleet.pid("api"))
    before, cpu = _database(fleet), sum(api.cpu_times()[:2])
    crowd = Crowd(fleet.url, keys, jobs, rate, method=METHOD)
    began = time.monotonic()
    crowd.start()
    crowd.join(fleet)
    seconds = time.monotonic() - began
    after, cpu = _database(fleet), sum(api.cpu_times()[:2]) - cpu
    commits, made = after["xact_commit"] - before["xact_commit"], after["sessions"] - before["sessions"]
    return [
        str(jobs),
        f"{jobs / seconds:.0f}",
        *milliseconds(crowd.times),
        f"{1000 * cpu / jobs:.1f}",
        f"{commits / jobs:.1f}",
        str(made),
    ]


def _database(fleet: Fleet) -> dict[str, int]:
    query = text("SELECT xact_commit, sessions FROM pg_stat_database WHERE datname = current_database()")
    with transaction(fleet.sessions) as session:
        return dict(session.execute(query).mappings().one())


def _end_all(fleet: Fleet) -> None:
    """Bring all that wait to their end, measured: what later estimates learn from."""
    measured = dict.fromkeys(FIGURES, 10**9)
    while True:
        with contextlib.suppress(queue.JobsLocked), transaction(fleet.sessions) as session:  # by the dispatcher
            claimed = queue.claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
            if claimed is None:
                return
            job = (claimed.job_id, claimed.attempt)
            queue.finish_succeeded(session, *job, metrics={}, report={}, files=[], measured=measured)


def _cost(fleet: Fleet, key: str, submits: int = 200) -> str:
    """Return the cost of one submission through the application, called without a network."""
    app = create_app(fleet.settings)
    with TestClient(app) as client:
        engine: Engine = app.state.api.sessions.kw["bind"]
        headers = {"Authorization": f"Bearer {key}"}

        def submit() -> None:
            answer = client.post("/v1/jobs", json=BODY, headers=headers)
            assert answer.status_code == 201, answer.text

        for _ in range(20):
            submit()
        with counted(engine) as counts:
            process = psutil.Process()
            cpu = sum(process.cpu_times()[:2])
            for _ in range(submits):
                submit()
            cpu = sum(process.cpu_times()[:2]) - cpu
    of_each = ", ".join(f"{counts[what] / submits:.1f} {what}" for what in ("statements", "transactions", "hops"))
    return f"a submission: {of_each}, {1000 * cpu / submits:.1f} ms CPU with its client's"


@contextlib.contextmanager
def counted(engine: Engine) -> Iterator[Counter[str]]:
    """Count an engine's transactions, their statements without BEGIN and COMMIT, and changes from the event loop to a
    thread and back (hops).
    """
    counts: Counter[str] = Counter()
    hop: Callable[..., Any] = anyio.to_thread.run_sync

    def count_transaction(_connection: object) -> None:
        counts["transactions"] += 1

    def count_statement(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        counts["statements"] += not statement.startswith("BEGIN")

    async def counted_hop(*arguments: Any, **options: Any) -> Any:
        counts["hops"] += 1
        return await hop(*arguments, **options)

    listeners: dict[str, Callable[..., Any]] = {"begin": count_transaction, "after_cursor_execute": count_statement}
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    try:
        with patch.object(anyio.to_thread, "run_sync", counted_hop):
            yield counts
    finally:
        for name, listener in listeners.items():
            event.remove(engine, name, listener)


if __name__ == "__main__":
    sys.exit(main())
