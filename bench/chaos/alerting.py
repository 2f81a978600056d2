"""Each alert of deploy/prometheus/alerts.yml and the fault that fires it, tried on a fleet that a Prometheus watches:
`python -m bench.chaos.alerting [--alert NAME …]`. The last line is `alerts N, silent M`; the run's folder, with every
log, is kept where an alert was silent.
"""

import argparse
import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from bench.chaos.bodies import MODEL, TEXT, write_model, write_words
from bench.chaos.faults import KINDS, Fault
from bench.chaos.fleet import ALL, Fleet
from bench.chaos.installation import add_endpoint
from bench.chaos.prometheus import Prometheus, watch
from bench.parts import until
from secateur import Client

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "alerts.yml"
FASTER = 60
"""An hour of a rule takes a minute, and a minute of waiting the least there is. What an expression compares with, such
as the age of a job, is not shortened."""
PATIENCE_SECONDS = 600
_EVERY_SECONDS = 1.0
_ANSWER_SECONDS = 10
_FOREVER = 3600.0
"""A fault lasts until its alert has come."""
_TEAM = "gardeners"
_JOB: dict[str, Any] = {
    "model": MODEL,
    "method": "wanda",
    "sparsity": 0.5,
    "calibration": {"dataset": TEXT, "samples": 8, "sequence_length": 32},
}


@dataclass(frozen=True)
class Cause:
    """A fault of this kind to each of the targets at once, kept up until the alert fires. `again` is one that is over
    as soon as it is done, and is done again after so many seconds; a killed worker needs some until it has a job that
    it can lose. With `jobs`, so many are submitted before it; with `requests`, the API is asked for a list of them all
    the while.
    """

    kind: str
    targets: tuple[str, ...] = ("",)
    again: float | None = None
    jobs: int = 0
    requests: bool = False


CAUSES: Final[dict[str, Cause]] = {
    "SecateurDatabaseAway": Cause("postgres_fast", ("postgres",)),
    "SecateurStoreAway": Cause("s3_error500", ("store",)),
    "SecateurBrokerAway": Cause("redis_restart_kept", ("redis",)),
    "SecateurBrokerFull": Cause("redis_full"),
    "SecateurRequestsRefused": Cause("postgres_fast", ("postgres",), requests=True),
    "SecateurWebhooksOverdue": Cause("freeze", ALL.dispatchers, jobs=1),
    "SecateurJobsWaitWhileWorkersIdle": Cause("team_held", jobs=1),
    "SecateurDutyNotDone": Cause("freeze", ALL.dispatchers),
    "SecateurQueueWithoutWorkers": Cause("freeze", ALL.workers, jobs=1),
    "SecateurWorkersPaused": Cause("disk_full", ("worker-0",)),
    "SecateurDeviceFailed": Cause("device_failed"),
    "SecateurWorkersLost": Cause("kill", ALL.workers, again=20, jobs=40),
    "SecateurOutOfMemory": Cause("kill", tuple(f"{worker}/job" for worker in ALL.workers), again=1, jobs=40),
    "SecateurAttemptsFail": Cause("kill", tuple(f"{worker}/job" for worker in ALL.workers), again=1, jobs=40),
    "SecateurSlow": Cause("jobs_held", requests=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.alerting", description=__doc__)
    parser.add_argument("--alert", action="append", choices=sorted(CAUSES), help="these alone")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the run has its own")
    asked = parser.parse_args(arguments)
    alerts = asked.alert or list(CAUSES)
    folder = Path(tempfile.mkdtemp(prefix="alerts-", dir=asked.folder))
    with Fleet(folder) as fleet:
        silent = fire_each(fleet, alerts)
    if not silent:
        shutil.rmtree(folder)
    print(f"alerts {len(alerts)}, silent {len(silent)}")
    return int(bool(silent))


def fire_each(fleet: Fleet, alerts: Sequence[str]) -> list[str]:
    """Have each alert's fault come, one after the other; return the alerts that did not come for theirs in time."""
    silent = []
    add_endpoint(fleet.installation, fleet.journal, _TEAM, "all")
    with (
        watch(fleet.installation.apis, RULES, fleet.folder / "prometheus", FASTER) as prometheus,
        Client(fleet.installation.apis[0], fleet.installation.admin_keys[_TEAM]) as client,
    ):
        client.upload_model(MODEL, write_model(fleet.folder / MODEL, 1))
        client.upload_dataset(TEXT, write_words(fleet.folder / f"{TEXT}.txt", 1))
        for alert in alerts:
            began = time.monotonic()
            for _ in range(CAUSES[alert].jobs):
                client.submit(**_JOB)
            if not _fires(alert, fleet, prometheus):
                silent.append(alert)
            said = "silent" if alert in silent else "fired"
            print(f"{alert}: {said} after {time.monotonic() - began:.0f} s", flush=True)
            until(lambda: not prometheus.firing(), PATIENCE_SECONDS)
    return silent


def _fires(alert: str, fleet: Fleet, prometheus: Prometheus) -> bool:
    cause = CAUSES[alert]
    due = time.monotonic()
    deadline = due + PATIENCE_SECONDS
    with ExitStack() as stack:
        if cause.again is None:
            _strike(cause, fleet, stack)
        while time.monotonic() < deadline:
            if alert in prometheus.firing():
                return True
            if cause.again is not None and time.monotonic() >= due:
                with ExitStack() as once:
                    _strike(cause, fleet, once)
                due = time.monotonic() + cause.again
            if cause.requests:
                _request(fleet)
            time.sleep(_EVERY_SECONDS)
    return False


def _strike(cause: Cause, fleet: Fleet, stack: ExitStack) -> None:
    for target in cause.targets:
        stack.enter_context(KINDS[cause.kind].strike(fleet, Fault(1, cause.kind, target, _FOREVER)))


def _request(fleet: Fleet) -> None:
    """Ask every API for a list of jobs, whatever it answers."""
    for api in fleet.installation.apis:
        with contextlib.suppress(httpx.HTTPError):
            fleet.installation.request(_TEAM, "GET", "/v1/jobs", api=api, seconds=_ANSWER_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
