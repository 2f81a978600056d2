"""Failover of the database: `python -m bench.failover`. A primary is killed while jobs run, and its replica promoted.

API, dispatcher and workers, whose method does nothing, name both hosts, and none of them is started anew. Afterwards
the old primary comes back as it was, writable, as after a mistake. Needs PostgreSQL of Debian's packages; as root the
servers run as `postgres`.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.load_fleet import MODEL, Fleet
from bench.parts import until
from bench.replicated import Replicated
from secateur import Client, errors

_WORKERS = 2
_PATIENCE_SECONDS = 180.0
_BEFORE = 2
"""Jobs that succeed before the primary is killed; others run then."""
_EVERY_SECONDS = 2.0
_LAG_SECONDS = 3.0
_JOBS = "SELECT id, status FROM jobs"


@dataclass
class Outcome:
    """Outcome of one failover; times are in seconds from the kill."""

    kind: str
    promoted_seconds: float
    answered_again_seconds: float
    ran_again_seconds: float
    answered: int
    lost: int
    on_old_primary: int
    not_succeeded: int
    ended: list[str]


class _Submitter(threading.Thread):
    """Client that submits a job every two seconds, and keeps the ids that it was answered, with the time."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(daemon=True)
        self.answered: dict[str, float] = {}
        self._url, self._key = url, key
        self._over = threading.Event()

    def run(self) -> None:
        with Client(self._url, self._key, timeout=10, retries=0) as client:
            while not self._over.wait(_EVERY_SECONDS):
                try:
                    job = client.submit(model=MODEL, method="magnitude", sparsity=0.5)
                except errors.SecateurError:
                    continue
                self.answered[job.id] = time.monotonic()

    def stop(self) -> None:
        self._over.set()
        self.join(30)


def fail_over(folder: Path, *, is_synchronous: bool, lag_seconds: float = 0) -> Outcome:
    """Return what came of one failover, with the old primary back afterwards."""
    pair = Replicated(folder / "servers", is_synchronous=is_synchronous)
    hosts = f"127.0.0.1:{pair.primary.port},127.0.0.1:{pair.replica.port}"
    try:
        pair.start()
        url = f"postgresql+psycopg://postgres@{hosts}/postgres"
        with Fleet(folder / "service", _WORKERS, database_url=url) as fleet:
            pids = {name: fleet.pid(name) for name in fleet.names}
            [key] = fleet.keys(1, 1)
            submitter = _Submitter(fleet.url, key)
            submitter.start()
            primary, replica = pair.primary, pair.replica
            until(lambda: _count(primary.run(_JOBS), "succeeded") >= _BEFORE, _PATIENCE_SECONDS, "jobs succeed")
            killed_at = time.monotonic()
            done_before = _count(primary.run(_JOBS), "succeeded")
            pair.fail_over(lag_seconds=lag_seconds)
            killed_at += lag_seconds
            promoted = time.monotonic() - killed_at
            until(lambda: max(submitter.answered.values()) > killed_at + promoted, _PATIENCE_SECONDS, "an answer")
            answered_again = max(submitter.answered.values()) - killed_at
            until(lambda: _count(replica.run(_JOBS), "succeeded") > done_before, _PATIENCE_SECONDS, "a job succeeds")
            ran_again = time.monotonic() - killed_at
            last_on_old = set(submitter.answered)
            primary.start()  # as it was: nobody told it that it is none any more
            time.sleep(5)
            submitter.stop()
            new = {str(job): str(status) for job, status in replica.run(_JOBS)}
            until(lambda: all(s == "succeeded" for _, s in replica.run(_JOBS)), _PATIENCE_SECONDS, "all succeed")
            old = {str(job) for job, _ in primary.run(_JOBS)}
            return Outcome(
                kind=("synchronous" if is_synchronous else "asynchronous") + (", lagging" if lag_seconds else ""),
                promoted_seconds=round(promoted, 1),
                answered_again_seconds=round(answered_again, 1),
                ran_again_seconds=round(ran_again, 1),
                answered=len(submitter.answered),
                lost=len(set(submitter.answered) - set(new)),
                on_old_primary=len((old & set(submitter.answered)) - last_on_old),
                not_succeeded=sum(status != "succeeded" for _, status in replica.run(_JOBS)),
                ended=[name for name in pids if not fleet.is_running(name)],
            )
    finally:
        pair.stop()


def _count(rows: list[tuple[object, ...]], status: str) -> int:
    return sum(row[1] == status for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--kind", choices=("synchronous", "asynchronous", "lagging"), action="append")
    kinds = parser.parse_args().kind or ["synchronous", "asynchronous", "lagging"]
    is_well = True
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="secateur-failover-", ignore_cleanup_errors=True) as name:
            lag = _LAG_SECONDS if kind == "lagging" else 0.0
            outcome = fail_over(Path(name), is_synchronous=kind == "synchronous", lag_seconds=lag)
        print(json.dumps(asdict(outcome)), flush=True)
        is_well &= not (outcome.on_old_primary or outcome.not_succeeded or outcome.ended)
        is_well &= kind == "lagging" or outcome.lost == 0
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
