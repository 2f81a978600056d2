"""A fleet on which each alert's fault is tried: `python -m bench.chaos.alerting [--alert NAME …]`. The last line is
`alerts N, silent M`; the run's folder, with every log, is kept where an alert was silent.
"""

import argparse
import contextlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.chaos.alerts import CAUSES, FleetAccess, fire_each
from bench.chaos.bodies import MODEL, TEXT, write_model, write_words
from bench.chaos.faults import KINDS
from bench.chaos.fleet import Fleet
from bench.chaos.receiver import Receiver
from bench.chaos.schedule import Fault
from bench.chaos.variables import PASSWORD
from secateur import Client

_JOB: dict[str, Any] = {
    "model": MODEL,
    "method": "wanda",
    "sparsity": 0.5,
    "calibration": {"dataset": TEXT, "samples": 8, "sequence_length": 32},
}
_ANSWER_SECONDS = 10
_FOREVER = 3600.0
"""A fault lasts until its alert has come."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.alerting", description=__doc__)
    parser.add_argument("--alert", action="append", choices=sorted(CAUSES), help="these alone")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the run has its own")
    asked = parser.parse_args(arguments)
    alerts = asked.alert or list(CAUSES)
    folder = Path(tempfile.mkdtemp(prefix="alerts-", dir=asked.folder))
    with Receiver(folder) as receiver, Fleet(folder, receiver) as fleet:
        silent = fire_each(_access(fleet), folder / "prometheus", alerts)
    if not silent:
        shutil.rmtree(folder)
    print(f"alerts {len(alerts)}, silent {len(silent)}")
    return int(bool(silent))


def _access(fleet: Fleet) -> FleetAccess:
    installation = fleet.installation
    api = installation.apis[0]
    team, key = next(iter(installation.admin_keys.items()))
    with Client(api, key) as client:
        client.upload_model(MODEL, write_model(fleet.folder / MODEL, 1))
        client.upload_dataset(TEXT, write_words(fleet.folder / f"{TEXT}.txt", 1))
    headers = {"Authorization": f"Bearer {key}"}
    endpoint = {"url": f"{installation.hooks}/{team}/all", "types": [], "metadata": {}}
    httpx.post(f"{api}/v1/webhooks", json=endpoint, headers=headers, timeout=_ANSWER_SECONDS).raise_for_status()

    def apply(kind: str, target: str) -> AbstractContextManager[None]:
        fault = Fault(1, kind, target, _FOREVER, 0, None, joins=False)
        return KINDS[kind](fleet, fault, target)

    def submit(jobs: int) -> None:
        with Client(api, key) as client:
            for _ in range(jobs):
                client.submit(**_JOB)

    def request() -> None:
        for url in installation.apis:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{url}/v1/jobs", headers=headers, timeout=_ANSWER_SECONDS)

    return FleetAccess(installation, _redis_url(fleet), apply, submit, request)


def _redis_url(fleet: Fleet) -> str:
    """Return the address that its process has as its title."""
    pid = fleet.parts["redis"].pid
    assert pid is not None
    [port] = re.findall(r"127\.0\.0\.1:(\d+)", " ".join(psutil.Process(pid).cmdline()))
    return str(httpx.URL(f"redis://127.0.0.1:{port}/0", username="", password=PASSWORD))


if __name__ == "__main__":
    raise SystemExit(main())
