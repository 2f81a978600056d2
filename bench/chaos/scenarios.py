"""One directed fault at a small installation, then the checker: `python -m bench.chaos.scenarios NAME`.

Prints a line of JSON for each violation; the exit status is 0 whatever was found. `mutations` runs them against a
service that was changed, and against the one that was not.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.chaos.bodies import MODEL, TEXT, write_model, write_words
from bench.chaos.checker import Violation, check
from bench.chaos.journal import Journal
from bench.chaos.small import LEASE_SECONDS, Small
from bench.parts import until
from secateur import Client, Job

_TEAM = "gardeners"
_BOUND_SECONDS = 90.0
_PATIENCE_SECONDS = 90.0

Scenario = Callable[[Small, Client, Journal], None]


def frozen_past_its_lease(small: Small, client: Client, journal: Journal) -> None:
    """A worker is frozen until another has taken its job over; then it goes on, and the other is frozen meanwhile."""
    small.start("worker-1")
    job = _submit(client, journal, {"method": "wanda", "sparsity": 0.5, "calibration": _CALIBRATION})
    until(
        lambda: client.job(job.id).stage in ("prune", "evaluate", "verify"),
        _PATIENCE_SECONDS,
        "the first attempt prunes",
    )
    small.freeze("worker-1")
    small.start("worker-2")
    until(lambda: _is_running(client.job(job.id), attempt=2), _PATIENCE_SECONDS, "another worker takes over")
    small.freeze("worker-2")
    small.thaw("worker-1")
    time.sleep(LEASE_SECONDS)
    small.thaw("worker-2")
    _wait(client, job.id)


def cancelled_while_it_runs(small: Small, client: Client, journal: Journal) -> None:
    """A running job is cancelled and tried again: statements that match no row are among those of every cancel."""
    small.start("worker-1")
    job = _submit(client, journal, {"method": "wanda", "sparsity": 0.5, "calibration": _CALIBRATION})
    until(lambda: client.job(job.id).stage in ("open", "prune", "evaluate"), _PATIENCE_SECONDS, "the job runs")
    journal.note("cancel_answered", job=job.id, team=_TEAM, status=client.cancel(job.id).status)
    _wait(client, job.id)
    journal.note("retry_answered", job=job.id, team=_TEAM, status=client.retry(job.id).status)
    _wait(client, job.id)


def killed_while_it_publishes(small: Small, client: Client, journal: Journal) -> None:
    """A worker is killed once the first file of its artifact is in the store; it is started again."""
    small.start("worker-1")
    killed: list[str] = []

    def kill(key: str) -> None:
        if key.startswith("job_") and not killed:
            killed.append(key)
            small.kill("worker-1")

    small.store.on_stored = kill
    job = _submit(client, journal, {"method": "magnitude", "sparsity": 0.5})
    until(lambda: killed, _PATIENCE_SECONDS, "a file of the artifact is stored")
    journal.note("fault", number=1, name="kill", target="worker-1", stage="store", seconds=0, phase="healed")
    small.start("worker-1")
    assert client.job(job.id).status == "running"


_CALIBRATION = {"dataset": TEXT, "samples": 8, "sequence_length": 32}
SCENARIOS: dict[str, Scenario] = {
    each.__name__.replace("_", "-"): each
    for each in (frozen_past_its_lease, cancelled_while_it_runs, killed_while_it_publishes)
}


def run(scenario: Scenario) -> list[Violation]:
    """Return what the checker finds after it."""
    with tempfile.TemporaryDirectory(prefix="secateur-chaos-") as name:
        folder = Path(name)
        with Small(folder, (_TEAM,)) as small:
            journal = Journal(folder / "journal.jsonl")
            [api], key = small.installation.apis, small.installation.admin_keys[_TEAM]
            with Client(api, key) as client:
                client.upload_model(MODEL, write_model(folder / "clients" / MODEL, 0))
                client.upload_dataset(TEXT, write_words(folder / "clients" / f"{TEXT}.txt", 0))
                scenario(small, client, journal)
            return check(
                small.installation,
                journal.path,
                bound_seconds=_BOUND_SECONDS,
                expected_pids=small.pids,
                run_id=small.run_id,
            )


def _submit(client: Client, journal: Journal, body: dict[str, Any]) -> Job:
    key = f"key-{body['method']}"
    job = client.submit(idempotency_key=key, model=MODEL, metadata={"submission": key}, **body)
    journal.note("accepted", job=job.id, team=_TEAM, key=key, ends=None)
    return job


def _is_running(job: Job, attempt: int) -> bool:
    return job.status == "running" and job.attempt == attempt


def _wait(client: Client, job_id: str) -> None:
    until(lambda: client.job(job_id).finished, _PATIENCE_SECONDS, "the job ends")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.scenarios", description=__doc__)
    parser.add_argument("name", choices=sorted(SCENARIOS))
    for violation in run(SCENARIOS[parser.parse_args().name]):
        print(json.dumps(asdict(violation)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
