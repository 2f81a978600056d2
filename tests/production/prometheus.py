"""A Prometheus that scrapes an API process once a second."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.parts import until
from tests.production.programs import needed
from worker.processes import spawn

START_SECONDS = 60

Series = dict[str, Any]
"""One result of a query: its labels as `metric`, and as `value` a time and what it is, as text."""


class Prometheus:
    """One that runs; asked by its HTTP API."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=10)

    def query(self, expression: str) -> list[Series]:
        """Return what an expression is at this moment. Raises ValueError, with Prometheus' words, where it is none."""
        answer = self.client.get("/api/v1/query", params={"query": expression}).json()
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        found: list[Series] = answer["data"]["result"]
        return found

    def scrapes(self, least: int) -> bool:
        """Tell whether each API process was scraped so often."""
        counts = self.query("count_over_time(up[1d])")
        return bool(counts) and all(int(each["value"][1]) >= least for each in counts)


@contextmanager
def watch(api: str, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus over what `api` (a base URL) tells at `/metrics`; `folder`, which must be there, takes all it
    writes. Skips where it is not installed.
    """
    scraped = {"job_name": "secateur", "static_configs": [{"targets": [urlsplit(api).netloc]}]}
    often = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (folder / "prometheus.yml").write_text(json.dumps({"global": often, "scrape_configs": [scraped]}))
    own = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    command = [needed("prometheus"), *own, "--web.listen-address=127.0.0.1:0"]
    log = folder / "prometheus.log"
    with log.open("wb") as said:
        process = spawn(command, name="prometheus", stdout=said, stderr=subprocess.STDOUT)
    try:
        running = Prometheus(f"http://{until(lambda: _address(log), START_SECONDS, log.name)}")
        with running.client:
            until(lambda: running.client.get("/-/ready").status_code == httpx.codes.OK, START_SECONDS, log.name)
            yield running
    finally:
        process.end(grace_seconds=10)


def _address(log: Path) -> str | None:
    """Return the address it says it listens at."""
    found = re.search(r'msg="Listening on" address=(127\.0\.0\.1:\d+)', log.read_text())
    return found[1] if found else None
