"""Rolling upgrade that is interrupted: `python -m bench.upgrade --from REVISION`. Two releases share one database.

The older release runs and takes jobs. The newer one's migrations are begun, held up by a transaction of somebody's, and
their process is killed; the older release goes on. They are begun again and finish. Then API, dispatcher and workers of
both releases run beside each other on one database and broker, and clients submit through both APIs; then the older
ones end. Every job that was answered must succeed, whichever release took, claimed or finished it.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import httpx
import psycopg

from bench.load_fleet import MODEL, Fleet
from bench.parts import free_port, until
from core.database import migrate
from core.database_url import libpq_url
from secateur import Client, errors
from worker.embedded.postgres import postgres

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_SECONDS = 240.0
_JOBS_EACH = 2
_ENDED = ("succeeded", "failed", "cancelled")
OLDER = ("older-api", "older-dispatcher", "older-worker-0")
_KEYS = """
import json, sys
from pathlib import Path
from bench.load_fleet import Fleet
from core.database import session_factory
from core.settings import Settings
fleet = Fleet(Path(sys.argv[1]), 0)
fleet.settings = Settings()
fleet.sessions = session_factory(fleet.settings)
print(json.dumps(fleet.keys(1, 1)))
"""
_MIGRATE = "from core.database import migrate; from core.settings import Settings; migrate(Settings())"


@dataclass
class Outcome:
    """Outcome of one upgrade. `by` counts jobs by the release that took them and the one that ran them,
    `errors` what any process logged as one.
    """

    older: str
    was_cut_off: bool
    answered: int
    not_succeeded: int
    refused: int
    by: dict[str, int]
    errors: int


class MixedFleet(Fleet):
    """Fleet that begins with parts of an older release, `older-api` and so on, whose sources are in a folder."""

    def __init__(self, folder: Path, older: Path, url: str) -> None:
        super().__init__(folder, 1, database_url=url)
        self._older, self._older_port, self._older_database = older, free_port(), url

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cleanup.callback(self.end_all)
        self.connect(self._older_database)
        self.start_redis()
        for name in OLDER:
            self.start(name)
        until(lambda: httpx.get(f"{self.older_url}/readyz", timeout=5).json()["can_run"], 180, "the older release")
        return self

    @property
    def older_url(self) -> str:
        """Address of the older release's API."""
        return f"http://127.0.0.1:{self._older_port}"

    def older_keys(self) -> list[str]:
        """Return keys of a team that has the model, made by the older release."""
        environment = self._environment("older-keys")
        made = subprocess.run(
            [sys.executable, "-c", _KEYS, str(self.folder)],
            capture_output=True,
            cwd=self._older,
            env=environment,
            check=True,
        )
        keys: list[str] = json.loads(made.stdout)
        return keys

    def _command(self, name: str) -> list[str]:
        if name not in OLDER:
            return super()._command(name)
        command = super()._command(name.removeprefix("older-"))
        command = [str(self._older_port) if word == str(self.api_port) else word for word in command]
        return ["env", "-C", str(self._older), *command]

    def _environment(self, name: str) -> dict[str, str]:
        sources = _paths(self._older) if name.startswith("older-") else {}
        return super()._environment(name) | sources


def release(revision: str, folder: Path) -> Path:
    """Return a folder with the sources of a revision."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(folder, filter="data")
    return folder


def _paths(sources: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{sources}:{sources / 'client/src'}"}


def _migrate(sources: Path, url: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **_paths(sources), "SECATEUR_DATABASE_URL": url}
    return subprocess.Popen([sys.executable, "-c", _MIGRATE], cwd=sources, env=environment)


def _cut_off(url: str) -> bool:
    """Begin the newer release's migrations while another transaction holds tables, and kill them where they wait.

    Returns whether they did.
    """
    with psycopg.connect(libpq_url(url)) as other, psycopg.connect(libpq_url(url), autocommit=True) as look:
        other.execute("SELECT 1 FROM jobs, teams, models LIMIT 1")
        other.execute("SELECT txid_current()")
        migrator = _migrate(ROOT, url)
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
        deadline = time.monotonic() + 60
        while migrator.poll() is None and time.monotonic() < deadline:
            if look.execute(waits).fetchall():
                migrator.kill()
                migrator.wait()
                return True
            time.sleep(0.01)
        return False


def upgrade(folder: Path, revision: str) -> Outcome:
    """Return what came of one upgrade from a revision to the sources of this one."""
    older = release(revision, folder / "older")
    folder.chmod(0o755)  # as root the server runs as another user
    with postgres(folder / "database") as url:
        if _migrate(older, url).wait() != 0:
            raise RuntimeError(f"release {revision} does not migrate")
        with MixedFleet(folder / "service", older, url) as fleet:
            [key] = fleet.older_keys()
            answered: dict[str, str] = {}
            refused = 0

            def submit(name: str, count: int) -> None:
                nonlocal refused
                with Client(fleet.older_url if name == "older" else fleet.url, key, timeout=20) as client:
                    for _ in range(count):
                        try:
                            job = client.submit(model=MODEL, method="magnitude", sparsity=0.5)
                        except errors.SecateurError:
                            refused += 1
                        else:
                            answered[job.id] = name

            submit("older", _JOBS_EACH)
            _wait(url, answered)
            was_cut_off = _cut_off(url)
            submit("older", _JOBS_EACH)
            _wait(url, answered)
            migrate(fleet.settings)
            submit("older", _JOBS_EACH)
            fleet.start_service()
            for _ in range(_JOBS_EACH):
                submit("older", 1)
                submit("newer", 1)
            _wait(url, answered)
            for name in OLDER:
                fleet.kill(name)
            submit("newer", _JOBS_EACH)
            statuses = _wait(url, answered)
            logs = {path.stem: path.read_text(errors="replace") for path in fleet.folder.glob("*.log")}
            ran = {job: name for name in ("older", "newer") for job in _ended(logs, name)}
            return Outcome(
                older=revision,
                was_cut_off=was_cut_off,
                answered=len(answered),
                not_succeeded=sum(statuses.get(job) != "succeeded" for job in answered),
                refused=refused,
                by=dict(Counter(f"{name} by {ran.get(job, 'nobody')}" for job, name in answered.items())),
                errors=sum(text.count("level=error") + text.count("Traceback") for text in logs.values()),
            )


def _ended(logs: dict[str, str], release: str) -> list[str]:
    log = logs.get("worker-0" if release == "newer" else "older-worker-0", "")
    return re.findall(r'event="job ended".*? job=(job_\w+)', log)


def _wait(url: str, jobs: Collection[str]) -> dict[str, str]:
    """Return the states of all jobs once those named have ended, or after a while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        while True:
            statuses: dict[str, str] = dict(connection.execute("SELECT id, status FROM jobs").fetchall())
            if time.monotonic() > deadline or all(statuses.get(job) in _ENDED for job in jobs):
                return statuses
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.upgrade", description=__doc__)
    parser.add_argument("--from", dest="older", default="HEAD~1", help="Revision of the older release.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secateur-upgrade-", ignore_cleanup_errors=True) as name:
        outcome = upgrade(Path(name), asked.older)
    print(json.dumps(asdict(outcome)), flush=True)
    return 0 if outcome.not_succeeded == 0 and outcome.answered else 1


if __name__ == "__main__":
    sys.exit(main())
