"""Sweeps on a queue of record, and a worker that ends jobs with the figures a test chooses."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.gates import evaluate_gates, missed_gates
from core.service.jobs.queue import Claim
from core.service.jobs.resolution.context import RequestContext, ServiceContext
from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.jobs.tables import JobRow
from core.service.sweeps import service
from core.service.sweeps.advance import advance_sweeps
from core.service.sweeps.schemas import Sweep, SweepBody, SweepResults
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import InternalError
from secateur_wire.job_body import Gates
from secateur_wire.metrics import Metrics
from secateur_wire.sweeps import Cost
from tests.answers import compared

Ratio = Callable[[dict[str, Any]], float | None]


@dataclass
class Sweeps:
    """Sweeps of a team, moved forward and worked on by hand."""

    sessions: sessionmaker[Session]
    settings: Settings
    store: Store
    team: str
    hints: list[str] = field(default_factory=list)

    def submit(self, body: dict[str, Any]) -> str:
        with transaction(self.sessions) as session:
            parsed = SweepBody.model_validate(body)
            return service.create(RequestContext(session, self.team, self.store, self.settings), parsed).id

    def get(self, sweep_id: str) -> Sweep:
        with transaction(self.sessions) as session:
            return service.get_sweep(session, self.team, sweep_id)

    def results(self, sweep_id: str, cost: Cost | None = None) -> SweepResults:
        with transaction(self.sessions) as session:
            return service.get_results(session, self.team, sweep_id, cost=cost)

    def cancel(self, sweep_id: str) -> Sweep:
        with transaction(self.sessions) as session:
            return service.cancel(session, self.team, sweep_id)

    def resume(self, sweep_id: str) -> Sweep:
        with transaction(self.sessions) as session:
            return service.resume(session, self.team, sweep_id)

    def advance(self) -> int:
        hub = HubLookup(self.settings, self.sessions)
        context = ServiceContext(self.sessions, self.store, self.settings, hub)
        return advance_sweeps(context, send_hint=lambda job_id, queue_name: self.hints.append(job_id))

    def jobs(self, status: str | None = None) -> list[JobRow]:
        """All jobs, oldest first."""
        query = select(JobRow).order_by(JobRow.created_at, JobRow.id)
        with transaction(self.sessions) as session:
            return list(session.scalars(query if status is None else query.where(JobRow.status == status)))

    def claim(self) -> Claim | None:
        with transaction(self.sessions) as session:
            return queue.claim(session, queue="default", worker_id="a worker", lease_seconds=60)

    def work(self, ratio: Ratio = lambda body: 1.0 + body["sparsity"]) -> list[Claim]:
        """Take and end every job that waits; `ratio` is of perplexities, None: the job fails."""
        taken = []
        while (claim := self.claim()) is not None:
            self.end(claim, ratio(claim.body))
            taken.append(claim)
        return taken

    def end(self, claim: Claim, ratio: float | None) -> None:
        """End a job with these figures, or with a failure; missed gates are judged as a worker does."""
        with transaction(self.sessions) as session:
            if ratio is None:
                problem = InternalError("as told").problem()
                queue.finish_failed(session, claim.job_id, claim.attempt, problem)
                return
            metrics, report = figures(claim, ratio)
            missed = missed_gates(
                evaluate_gates(Gates.model_validate(claim.body["gates"]), Metrics.model_validate(metrics))
            )
            if missed is not None:
                queue.finish_failed(
                    session, claim.job_id, claim.attempt, missed.problem(), metrics=metrics, report=report
                )
                return
            queue.finish_succeeded(session, claim.job_id, claim.attempt, metrics=metrics, report=report, files=[])

    def finish(self, sweep_id: str, ratio: Ratio = lambda body: 1.0 + body["sparsity"], rounds: int = 200) -> Sweep:
        """Move on and work until the sweep is over."""
        for _ in range(rounds):
            self.advance()
            if (sweep := self.get(sweep_id)).status != "running":
                return sweep
            self.work(ratio)
        raise AssertionError(f"still running after {rounds} rounds: {sweep}")


def figures(claim: Claim, ratio: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics and report as a worker writes them; the dense model is measured where the claim brings no figure."""
    name = claim.body["evaluation"]["datasets"][0]
    facts = {"model": claim.model.revision, "samples": claim.body["evaluation"]["samples"]}
    known = claim.baseline and claim.baseline.find("perplexity", facts)
    figure = known.model_dump(mode="json") if known else {
        "kind": "perplexity", "name": name, "facts": facts, "values": {"perplexity": 10.0}, "job": claim.job_id,
    }  # fmt: skip
    dense = figure["values"]["perplexity"]
    sparsity = claim.body["sparsity"]
    bits = {"ratio": math.log(dense * ratio) / math.log(dense)}
    perplexity = {"dense": dense, "pruned": dense * ratio, "ratio": ratio, "sequence_length": 32}
    metrics = {
        "perplexity": {name: {**perplexity, "bits_per_byte": bits}},
        "sparsity": {"prunable": sparsity, "model": sparsity},
        "parameters": {"dense": 1000, "nonzero": round(1000 * (1 - sparsity))},
        "bytes": {"dense": 2000, "artifact": 2000},
        "latency": {"dense_ms": 2.0, "pruned_ms": 2.0},
    }
    asked = claim.body["evaluation"].get("answers")
    if asked is not None:
        metrics["answers"] = {name: compared(ratio - 1, ratio) for name in asked["datasets"]}
    report = {"dense": {"measured": 0 if known else 1, "taken": 1 if known else 0, "figures": [figure]}, "layers": []}
    return metrics, report


@pytest.fixture
def sweeps(sessions: sessionmaker[Session], settings: Settings, store: Store, team: str) -> Sweeps:
    return Sweeps(sessions, settings, store, team)


@pytest.fixture
def grid_body(job_body: dict[str, Any]) -> dict[str, Any]:
    """Two methods at three sparsities."""
    job = {name: value for name, value in job_body.items() if name not in ("method", "sparsity")}
    return {"job": job, "grid": {"method": ["magnitude", "wanda"], "sparsity": [0.3, 0.5, 0.7]}, "max_concurrent": 2}


@pytest.fixture
def search_body(grid_body: dict[str, Any]) -> dict[str, Any]:
    """The smallest of three methods' models that keeps to a perplexity ratio."""
    return {
        "job": grid_body["job"],
        "max_concurrent": 1,
        "search": {
            "objective": "min_parameters",
            "subject_to": {"max_perplexity_ratio": 1.6},
            "methods": ["magnitude", "wanda", "sparsegpt"],
            "sparsities": [0.3, 0.4, 0.5, 0.6],
        },
    }
