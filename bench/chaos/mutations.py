"""The proof that the checker can fail: `python -m bench.chaos.mutations [NAME …]`.

Each mutation of `mutations.toml` is applied to a copy of the tree, where a small fleet goes through its scenario and
the checker must find the promise broken; before it is applied, the same scenario must leave nothing to find. The exit
status is 0 where all of that is so. `--scenario NAME` goes through one in this tree, and prints a line of JSON for each
violation.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.chaos import aim
from bench.chaos.bodies import MODEL, TEXT, write_model, write_words
from bench.chaos.faults import KINDS, Fault
from bench.chaos.fleet import FEW, Fleet
from bench.chaos.observation import Bucket
from bench.chaos.running import check_fleet
from bench.mutants.mutant import by_hand
from bench.parts import until
from secateur import Client

ROOT = Path(__file__).parents[2]
_TEAM = "gardeners"
_SECONDS = 600
_BOUND_SECONDS = 90.0
_PATIENCE_SECONDS = 90.0
_LEASE_SECONDS = 8.0
_CALIBRATION = {"dataset": TEXT, "samples": 8, "sequence_length": 32}
_WANDA = {"method": "wanda", "sparsity": 0.5, "calibration": _CALIBRATION}


def frozen_past_its_lease(fleet: Fleet, client: Client) -> None:
    """A worker is frozen until another has taken its job over; then it goes on, and the other is frozen meanwhile."""
    job = _submit(fleet, client, _WANDA)
    running = aim.wait_for(fleet, "prune", _PATIENCE_SECONDS)
    assert running is not None
    [other] = set(fleet.services.workers) - {running.worker}
    with _struck(fleet, "freeze", running.worker):
        until(lambda: client.job(job).attempt == 2, _PATIENCE_SECONDS, "another worker takes over")
    with _struck(fleet, "freeze", other):
        time.sleep(_LEASE_SECONDS)
    _wait(client, job)


def cancelled_while_it_runs(fleet: Fleet, client: Client) -> None:
    """A running job is cancelled and tried again. Every cancel runs some statements that match no row."""
    job = _submit(fleet, client, _WANDA)
    until(lambda: client.job(job).stage in ("open", "prune", "evaluate"), _PATIENCE_SECONDS, "the job runs")
    fleet.journal.note("cancel_answered", job=job, team=_TEAM, status=client.cancel(job).status)
    _wait(client, job)
    fleet.journal.note("retry_answered", job=job, team=_TEAM, status=client.retry(job).status)
    _wait(client, job)


def killed_while_it_publishes(fleet: Fleet, client: Client) -> None:
    """A worker is killed once the first file of its artifact is in the store, which is slow; it is started again."""
    with closing(Bucket(fleet.installation)) as bucket, _struck(fleet, "s3_slow", "store"):
        job = _submit(fleet, client, {"method": "magnitude", "sparsity": 0.5})
        until(lambda: any(key.startswith(job) for key in bucket.objects()), _PATIENCE_SECONDS, "a file is stored")
        for worker in fleet.services.workers:
            for process in reversed(fleet.processes(worker)):
                process.kill()
    fleet.journal.note("fault", number=1, name="kill", target="worker-*", stage="store", seconds=0, phase="healed")
    assert client.job(job).status == "running"


SCENARIOS: dict[str, Callable[[Fleet, Client], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (frozen_past_its_lease, cancelled_while_it_runs, killed_while_it_publishes)
}


def _struck(fleet: Fleet, kind: str, target: str) -> AbstractContextManager[None]:
    return KINDS[kind].strike(fleet, Fault(1, kind, target, 0.0))


def _submit(fleet: Fleet, client: Client, body: dict[str, Any]) -> str:
    key = f"key-{body['method']}"
    job = client.submit(idempotency_key=key, model=MODEL, metadata={"submission": key}, **body)
    fleet.journal.note("accepted", job=job.id, team=_TEAM, key=key, ends=None)
    return job.id


def _wait(client: Client, job: str) -> None:
    until(lambda: client.job(job).finished, _PATIENCE_SECONDS, "the job ends")


def go_through(scenario: str) -> None:
    """Print what the checker finds after a scenario."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, Fleet(Path(name) / "run", FEW) as fleet:
        with Client(fleet.installation.apis[0], fleet.installation.admin_keys[_TEAM]) as client:
            client.upload_model(MODEL, write_model(fleet.folder / "clients" / MODEL, 0))
            client.upload_dataset(TEXT, write_words(fleet.folder / "clients" / f"{TEXT}.txt", 0))
            SCENARIOS[scenario](fleet, client)
        for violation in check_fleet(fleet, _BOUND_SECONDS):
            print(json.dumps(asdict(violation)), flush=True)


def read_mutations() -> list[dict[str, Any]]:
    """Return the list: a `name`, the `scenario` that shows it, the `promise` that the checker must find broken, and
    every `change` of a file.
    """
    mutations: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["mutation"]
    return mutations


def apply(change: dict[str, str], tree: Path) -> None:
    """Change one file of a tree. Raises NotApplicable where its old text is not found once in it."""
    file = tree / change["file"]
    file.write_text(by_hand(name=change["file"], **change).applied(file.read_text("utf-8")), "utf-8")


def _found(tree: Path, scenario: str) -> list[dict[str, Any]]:
    """Return the violations that the checker finds in a tree. Raises RuntimeError where it did not come to looking."""
    own = {
        "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'client/src'}",
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing compiled of a mutation may outlive it
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "bench.chaos.mutations", "--scenario", scenario]
    done = subprocess.run(
        command, cwd=tree, env=os.environ | own, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{scenario} ended with {done.returncode}:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"promise"')]


def _is_caught(mutation: dict[str, Any]) -> bool:
    """Try one on a copy of the tree, without the change and with it; tell how it went."""
    name, promise = mutation["name"], mutation["promise"]
    with tempfile.TemporaryDirectory(prefix="secateur-mutation-") as place:
        tree = Path(place) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".*cache", "__pycache__"))
        without = _found(tree, mutation["scenario"])
        for change in mutation["change"]:
            apply(change, tree)
        violations = _found(tree, mutation["scenario"])
    caught = [each for each in violations if each["promise"] == promise]
    for each in without:
        print(f"unchanged {name}: {each['promise']}: {each['text']}", flush=True)
    text = caught[0]["text"] if caught else f"the checker found {sorted({each['promise'] for each in violations})}"
    print(f"{'caught' if caught else 'survived':9} {name}: {text} ({len(violations)} violations)", flush=True)
    return bool(caught) and not without


def main(arguments: Sequence[str] | None = None) -> int:
    mutations = {each["name"]: each for each in read_mutations()}
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutations; all where none is given")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS))
    asked = parser.parse_args(arguments)
    if asked.scenario:
        go_through(asked.scenario)
        return 0
    if unknown := set(asked.names) - mutations.keys():
        parser.error(f"no mutation is named {', '.join(sorted(unknown))}")
    return int(not all(list(map(_is_caught, [mutations[name] for name in asked.names or mutations]))))


if __name__ == "__main__":
    sys.exit(main())
