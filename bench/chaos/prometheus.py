"""A Prometheus that scrapes API processes once a second, with alert rules whose times are shortened."""

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
_LEAST_RANGE_SECONDS = 10
"""Shortest range in an expression: a rate needs some scrapes in it."""
_LEAST_FOR_SECONDS = 5
"""Shortest `for` where there is one: until the first scrape nothing is known of anybody."""
_SECONDS = {"s": 1, "m": 60, "h": 3600}

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
def watch(apis: Sequence[str], rules: Path | None, folder: Path, faster: float = 1) -> Iterator[Prometheus]:
    """Run a Prometheus over what `apis` (base URLs) tell at `/metrics` while the body runs; `folder` takes all it
    writes. It has the rules, whose times are divided by `faster`. Raises FileNotFoundError where it is not installed,
    TimeoutError where an API process does not answer or an alert fires from the start.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise FileNotFoundError("prometheus is not installed (apt-get install prometheus)")
    folder.mkdir(parents=True, exist_ok=True)
    if rules is not None:
        (folder / "rules.yml").write_text(shortened(rules.read_text(), faster))
    (folder / "prometheus.yml").write_text(json.dumps(_configuration(apis, rules is not None)))
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
            if apis:
                running.wait_for_calm()
            yield running
        finally:
            running.close()
    finally:
        process.end(grace_seconds=10)


def shortened(rules: str, faster: float) -> str:
    """Return alert rules whose `for` and ranges take the `faster`-th part of their time."""

    def part(duration: str, least: int) -> str:
        seconds = _seconds(duration)
        return f"{max(least, round(seconds / faster)) if seconds else 0}s"

    waits = re.compile(r"^( +for: )(\w+)$", re.MULTILINE)
    rules = waits.sub(lambda match: match[1] + part(match[2], _LEAST_FOR_SECONDS), rules)
    return re.sub(r"\[(\w+)\]", lambda match: f"[{part(match[1], _LEAST_RANGE_SECONDS)}]", rules)


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def _configuration(apis: Sequence[str], has_rules: bool) -> dict[str, Any]:
    scraped = [{"targets": [urlsplit(api).netloc for api in apis]}]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"] if has_rules else [],
        "scrape_configs": [{"job_name": "secateur", "static_configs": scraped}],
    }


def _address(log: Path) -> str | None:
    """Return the address it says it listens at."""
    found = re.search(r'msg="Listening on" address=(127\.0\.0\.1:\d+)', log.read_text())
    return found[1] if found else None


def _ended(log: Path) -> str:
    raise RuntimeError(f"Prometheus ended: {log.read_text()[-1000:]}")
