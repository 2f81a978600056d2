"""Every duty of the dispatcher, and every list of API and portal, on tables that are full: seconds, pages, memory."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session, sessionmaker

from api.app import create_app
from bench.queue_scale_plans import Plan, explain_anywhere
from bench.queue_scale_tables import DATA
from core.database import transaction
from core.service.retention.schemas import RetentionPolicy
from core.service.retention.service import set_retention
from core.service.teams.keys import create_key
from core.service.teams.server_secret import server_secret
from core.settings import Settings
from worker.dispatcher.clock import DutyRun, make_duties

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_KEPT_SECONDS = 6
"""Seconds after which the answer of the metrics, which is kept for five, is made anew."""
POLICY = RetentionPolicy(keep_days=300)


@dataclass(frozen=True)
class Cost:
    """Cost of a call: seconds as it ran, MiB at its peak, and the plans of its statements when it ran once more."""

    seconds: float
    mebibytes: float
    plans: list[Plan]

    @property
    def rows(self) -> int:
        """Return the most rows of a large table that one step of a statement read."""
        return max((plan.rows for plan in self.plans), default=0)

    @property
    def scanned(self) -> list[Plan]:
        return [plan for plan in self.plans if plan.scanned]


def measure_duties(sessions: sessionmaker[Session], settings: Settings, teams: list[str]) -> dict[str, Cost]:
    """Run every duty of the dispatcher, the publishers' as one, with a policy of retention for the first team."""
    with transaction(sessions) as session:
        set_retention(session, teams[0], POLICY)
    turn = DutyRun(sessions, settings)
    duties = {duty.name: duty for duty in make_duties(sessions, settings)}
    return {
        name: _cost(partial(duty.run, turn))
        for name, duty in duties.items()
        if name not in ("publications 2", "publications 3")
    }


def measure_lists(sessions: sessionmaker[Session], settings: Settings, teams: list[str]) -> dict[str, Cost]:
    """Ask for every list of the first team, which holds half of all rows."""
    with transaction(sessions) as session:
        secret = server_secret(settings)
        key = create_key(session, teams[0], role="admin", name="bench", expires_at=None, secret=secret).key
    with TestClient(create_app(settings)) as client:
        logging.disable(logging.WARNING)  # a line for each request
        assert client.post("/portal/sign-in", data={"key": key}, follow_redirects=False).status_code == 303
        client.headers["Authorization"] = f"Bearer {key}"
        return {
            name: _cost(partial(_ask, client, *ask), is_warm=True, pause=_KEPT_SECONDS if name == "metrics" else 0)
            for name, ask in _asks().items()
        }


def show_costs(console: Console, title: str, costs: dict[str, Cost]) -> None:
    table = Table(title, "seconds", "MiB", "ms in PostgreSQL", "pages", "most rows", "statements")
    for name, cost in costs.items():
        table.add_row(
            name,
            f"{cost.seconds:.3f}",
            f"{cost.mebibytes:.1f}",
            f"{sum(plan.milliseconds for plan in cost.plans):.1f}",
            str(sum(plan.buffers for plan in cost.plans)),
            str(cost.rows),
            str(len(cost.plans)),
        )
    console.print(table)


def show_faults(console: Console, costs: dict[str, Cost], most_rows: int) -> bool:
    """Print what reads a large table from end to end, or most of it; returns whether anything does."""
    is_any = False
    for name, cost in costs.items():
        if name in DATA["reads_much"]:
            continue
        for plan in cost.plans:
            if plan.scanned or plan.rows > most_rows:
                is_any = True
                what = f"{', '.join(plan.scanned)} from end to end" if plan.scanned else f"{plan.rows} rows"
                console.print(f"{name} reads {what}: {plan.sql[:1500]}", markup=False)
    return is_any


def _cost(call: Callable[[], object], *, is_warm: bool = False, pause: float = 0) -> Cost:
    if is_warm:
        call()  # a route that is asked for the first time is built, and caches are filled
    time.sleep(pause)
    begun = time.monotonic()
    mebibytes = _peak_of(call)
    seconds = time.monotonic() - begun
    time.sleep(pause)
    return Cost(seconds, mebibytes, explain_anywhere(call))


def _peak_of(call: Callable[[], object]) -> float:
    """Return the MiB by which the resident memory of this process rose at its highest while the call ran."""
    _CLEAR.write_text("5")  # the peak begins anew
    before = _kilobytes("VmRSS")
    call()
    return max(0, _kilobytes("VmHWM") - before) / 1024


def _kilobytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def _ask(client: TestClient, method: str, path: str, body: Any = None) -> None:
    answer = client.request(method, path, json=body)
    assert answer.status_code < 400, (method, path, answer.status_code, answer.text[:500])


def _asks() -> dict[str, tuple[Any, ...]]:
    """Return the requests of every list by name."""
    body = {"model": "tiny", "method": "magnitude", "sparsity": 0.5}
    posts: dict[str, tuple[Any, ...]] = {
        "preview of retention": ("POST", "/v1/team/retention/preview", POLICY.model_dump(mode="json")),
        "estimate's history": ("POST", "/v1/models/inspect", body),
        "plan's past jobs": ("POST", "/v1/plans", {"model": "tiny", "goal": "size"}),
    }
    return {name: ("GET", path) for name, path in DATA["lists"].items()} | posts
