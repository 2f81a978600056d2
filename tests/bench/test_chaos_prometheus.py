"""The Prometheus that watches a run with faults: alerts come within seconds, and go when their cause has gone."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from bench.chaos.alerting import CAUSES
from bench.chaos.faults import JOBS_HELD, KINDS, TEAMS_HELD, locked, redis_full
from bench.chaos.installation import Installation
from bench.chaos.prometheus import PROGRAM, shortened, watch
from bench.parts import until
from core.database_url import libpq_url
from tests.production.programs import needed
from tests.worker.redis_server import redis_running

ALERTS = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "alerts.yml"


class Told(BaseHTTPRequestHandler):
    store = 1

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(f"secateur_database_up 1\nsecateur_store_up {self.store}\n".encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def told() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_alert_fires_within_seconds_and_stops(told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed(PROGRAM)
    with watch([told], ALERTS, tmp_path, faster=60) as prometheus:
        monkeypatch.setattr(Told, "store", 0)
        until(lambda: "SecateurStoreAway" in prometheus.firing(), 60)
        monkeypatch.setattr(Told, "store", 1)
        until(lambda: not prometheus.firing(), 60)


def test_times_are_shortened_and_nothing_else() -> None:
    text = "      expr: rate(a[1h]) > 60\n      for: 15m\n      annotations: { summary: x for: 5m }\n"
    assert shortened(text, 60) == (
        "      expr: rate(a[60s]) > 60\n      for: 15s\n      annotations: { summary: x for: 5m }\n"
    )
    assert "[10s]" in shortened(text, 3600), "a rate needs some scrapes"
    assert "for: 0s" in shortened("      for: 0m", 60)


def test_a_rules_file_that_is_wrong_is_told(tmp_path: Path) -> None:
    needed(PROGRAM)
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("groups: [{name: a, rules: [{alert: A, expr: 'max('}]}]")
    with pytest.raises(RuntimeError, match="ended"), watch([], wrong, tmp_path / "prometheus"):
        pass


def test_each_alert_has_a_fault_that_fires_it() -> None:
    assert set(re.findall(r"- alert: (\w+)", ALERTS.read_text())) == set(CAUSES)
    assert {cause.kind for cause in CAUSES.values()} <= KINDS.keys()


def test_a_full_redis_is_provoked_and_healed(tmp_path: Path) -> None:
    with redis_running(tmp_path) as server:
        server.client.config_set("maxmemory", 100_000_000)
        with redis_full(server.url):
            assert int(server.client.config_get("maxmemory")["maxmemory"]) < server.client.info("memory")["used_memory"]
        assert server.client.config_get("maxmemory")["maxmemory"] == "100000000"


def test_what_is_held_is_let_go(database_url: str, team: str) -> None:
    installation = Installation(Path(), (), {}, "", Path(), "", "", "", "", database_url)
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        for held, asked in ((TEAMS_HELD, "SELECT FROM teams FOR UPDATE"), (JOBS_HELD, "SELECT FROM jobs")):
            with locked(installation, held), pytest.raises(psycopg.errors.LockNotAvailable):
                connection.execute(f"BEGIN; SET LOCAL lock_timeout = '50ms'; {asked}".encode())
            connection.execute("ROLLBACK")
            connection.execute(f"BEGIN; {asked}; COMMIT".encode())
