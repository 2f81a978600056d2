"""A Prometheus that scrapes API processes once a second, with alert rules."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.parts import until
from worker.processes import spawn

PROGRAM = "prometheus"
START_SECONDS = 60

Series = dict[str, Any]
"""One result of a query: its labels as `metric`, and as `value` a time and what it is, as text."""


class Prometheus:
    """One that runs; asked by its HTTP API."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)

    def query(self, expression: str) -> list[Series]:
        """Return what an expression is at this moment. Raises ValueError, with Prometheus' words, where it is none."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        found: list[Series] = answer["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire at this moment."""
        alerts = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def scrapes(self, least: int) -> bool:
        """Tell whether each API process was scraped so often."""
        counts = self.query("count_over_time(up[1d])")
        return bool(counts) and all(int(each["value"][1]) >= least for each in counts)

    def wait_for_calm(self) -> None:
        """Wait for the first scrape of all, until when nothing is known of anybody, and for what fires to be over."""
        until(lambda: self.scrapes(1) and not self.firing(), START_SECONDS)

    def is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self._client.close()


@contextmanager
def watch(apis: Sequence[str], rules: Path, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus over what `apis` (base URLs) tell at `/metrics` while the body runs; `folder` takes all it
    writes. Raises FileNotFoundError where it is not installed, TimeoutError where an API process does not answer or an
    alert fires from the start.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise FileNotFoundError("prometheus is not installed (apt-get install prometheus)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(json.dumps(_configuration(apis, rules)))
    log = folder / "prometheus.log"
    with log.open("wb") as said:
        process = spawn(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            name=PROGRAM,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        address = until(lambda: _address(log) if process.is_running() else _ended(log), START_SECONDS)
        running = Prometheus(f"http://{address}")
        try:
            until(lambda: running.is_ready() if process.is_running() else _ended(log), START_SECONDS)
            running.wait_for_calm()
            yield running
        finally:
            running.close()
    finally:
        process.end(grace_seconds=10)


def _configuration(apis: Sequence[str], rules: Path) -> dict[str, Any]:
    scraped = [{"targets": [urlsplit(api).netloc for api in apis]}]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "secateur", "static_configs": scraped}],
    }


def _address(log: Path) -> str | None:
    """Return the address it says it listens at."""
    found = re.search(r'msg="Listening on" address=(127\.0\.0\.1:\d+)', log.read_text())
    return found[1] if found else None


def _ended(log: Path) -> str:
    raise RuntimeError(f"Prometheus ended: {log.read_text()[-1000:]}")
