"""Packets lost on the way to database and broker: `python -m bench.packet_loss [--seconds 120] [--loss 1 10 100]`.

PostgreSQL and Redis are reached in a network namespace of their own, which takes root, over a wire that drops packets
by chance. API, dispatcher and two workers run jobs of a few seconds meanwhile. The exit status is 1 where a job was
lost, a request got no answer in time, or something still hung after the wire was well again.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis

from bench.load_fleet import MODEL, Fleet
from bench.page import table
from bench.parts import until
from secateur import Client
from tests.worker.lost_peers import PORT, Peer, peer
from worker.embedded.postgres import start_postgres

JOB_SECONDS = 3.0
ANSWER_SECONDS = 60.0
"""The longest a request may take: what a database that is lost is given, twice over."""
RECOVERY_SECONDS = 120.0
_PAUSE_SECONDS = 1.0
_JOBS_BEFORE = 6
"""Jobs that are there when the loss begins: workers hold two."""


class FarFleet(Fleet):
    """A fleet whose services reach database and broker over the peer's wire; this process reaches the database by its
    socket.
    """

    def __init__(self, folder: Path, peer: Peer) -> None:
        super().__init__(folder, workers=2)
        self._peer = peer

    def redis(self) -> "redis.Redis":
        return redis.Redis(host=self._peer.address, port=self.redis_port, socket_timeout=5)

    def _command(self, name: str) -> list[str]:
        command = super()._command(name)
        if name != "redis":
            return command
        return [
            "ip",
            "netns",
            "exec",
            self._peer.name,
            *command,
            "--bind",
            self._peer.address,
            "--protected-mode",
            "no",
        ]

    def _environment(self, name: str) -> dict[str, str]:
        far = {
            "SECATEUR_DATABASE_URL": f"postgresql+psycopg://postgres@{self._peer.address}:{PORT}/postgres",
            "SECATEUR_BROKER_URL": f"redis://{self._peer.address}:{self.redis_port}/0",
        }
        return {**super()._environment(name), **far}


@dataclass
class Findings:
    """Figures of one rate of loss. Times in seconds; None where it did not come in time."""

    loss: float
    answers: Counter[str] = field(default_factory=Counter)
    longest_answer: float = 0.0
    longest_health: float = 0.0
    jobs: list[str] = field(default_factory=list)
    ended_meanwhile: int = 0
    all_ended: float | None = None
    streamed: float | None = None

    @property
    def is_well(self) -> bool:
        return self.all_ended is not None and self.streamed is not None and "none" not in self.answers


def try_loss(fleet: FarFleet, wire: Peer, key: str, loss: float, seconds: float) -> Findings:
    """Lose so many percent of the packets for so long, while jobs are submitted; then wait until all is well."""
    found = Findings(loss)
    over = threading.Event()
    threads = [threading.Thread(target=each, args=(fleet, key, found, over)) for each in (_submit, _probe)]
    for _ in range(_JOBS_BEFORE):
        _submit_one(fleet, key, found)
    wire.lose(loss)
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    found.ended_meanwhile = len(_succeeded(fleet, key, found.jobs)) if loss < 100 else 0
    wire.lose(0)
    over.set()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    try:
        until(lambda: len(_succeeded(fleet, key, found.jobs)) == len(found.jobs), RECOVERY_SECONDS)
        found.all_ended = time.monotonic() - began
        began = time.monotonic()
        with Client(fleet.url, key, timeout=ANSWER_SECONDS) as client:  # its events come by a notification
            list(client.events(client.submit(model=MODEL, method="noop", sparsity=0.5).id))
        found.streamed = time.monotonic() - began
    except (TimeoutError, httpx.HTTPError) as error:
        print(f"{loss:g} %: {type(error).__name__}: {error}", file=sys.stderr)
    return found


def _submit(fleet: FarFleet, key: str, found: Findings, over: threading.Event) -> None:
    while not over.wait(_PAUSE_SECONDS):
        began = time.monotonic()
        _submit_one(fleet, key, found)
        found.longest_answer = max(found.longest_answer, time.monotonic() - began)


def _submit_one(fleet: FarFleet, key: str, found: Findings) -> None:
    try:
        answer = _request(fleet, key, "POST", "/v1/jobs", {"model": MODEL, "method": "noop", "sparsity": 0.5})
        found.answers[str(answer.status_code)] += 1
        if answer.is_success:
            found.jobs.append(answer.json()["id"])
    except httpx.TransportError:
        found.answers["none"] += 1


def _probe(fleet: FarFleet, key: str, found: Findings, over: threading.Event) -> None:
    while not over.wait(_PAUSE_SECONDS):
        began = time.monotonic()
        httpx.get(f"{fleet.url}/healthz", timeout=ANSWER_SECONDS).raise_for_status()
        found.longest_health = max(found.longest_health, time.monotonic() - began)


def _succeeded(fleet: FarFleet, key: str, jobs: Sequence[str]) -> set[str]:
    """Return the jobs that succeeded; raises httpx.HTTPError where the API does not say."""
    listed = _request(fleet, key, "GET", "/v1/jobs?status=succeeded&limit=200").raise_for_status().json()["data"]
    return {job["id"] for job in listed} & set(jobs)


def _request(fleet: FarFleet, key: str, method: str, path: str, body: object = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.request(method, f"{fleet.url}{path}", json=body, headers=headers, timeout=ANSWER_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.packet_loss", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each loss")
    parser.add_argument("--loss", type=float, nargs="+", default=[1, 10, 100], help="in percent")
    asked = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory(prefix="secateur-loss-") as name:
        folder = Path(name)
        start_postgres(folder / "postgres")
        with peer(folder / "postgres" / ".s.PGSQL.5432") as wire:
            if wire is None:
                parser.error("no network namespace can be made here: that takes root and iproute2")
            with FarFleet(folder, wire) as fleet:
                (folder / "seconds").write_text(str(JOB_SECONDS))
                [key] = fleet.keys(1, 1)
                for loss in asked.loss:
                    results.append(try_loss(fleet, wire, key, loss, asked.seconds))
                    print(results[-1], flush=True)
    print(_report(results))
    return int(not all(each.is_well for each in results))


def _report(results: Sequence[Findings]) -> str:
    return table(
        [
            "loss, %",
            "accepted",
            "refused",
            "unanswered",
            "longest answer, s",
            "/healthz, s",
            "ended meanwhile",
            "all ended after, s",
            "stream, s",
        ],
        [
            [
                f"{each.loss:g}",
                str(len(each.jobs)),
                str(sum(each.answers.values()) - len(each.jobs) - each.answers["none"]),
                str(each.answers["none"]),
                *(f"{seconds:.1f}" for seconds in (each.longest_answer, each.longest_health)),
                str(each.ended_meanwhile),
                *("never" if seconds is None else f"{seconds:.1f}" for seconds in (each.all_ended, each.streamed)),
            ]
            for each in results
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
