"""The fleet in Prometheus' words, read from the database: any API process answers for all workers, and a worker that
was killed takes no count along.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import inf

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.jobs import fleet
from core.jobs.duties import known_duties
from core.jobs.queue import WORKER_STATES
from core.jobs.tables import AttemptTotalRow, DutyRow, StageTotalRow, WorkerRow
from core.webhooks.log import WaitingFigures, waiting_figures

CACHED_SECONDS = 5.0
"""However many scrape, the database is asked no more often."""
_TIMEOUT = "3s"

log = structlog.get_logger()


def metrics_registry(sessions: sessionmaker[Session], fresh_seconds: float) -> CollectorRegistry:
    """All there is to scrape: what this process measured of itself, and the fleet."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(REGISTRY)
    registry.register(FleetCollector(sessions, fresh_seconds))
    return registry


class FleetCollector(Collector):
    """Queues, workers and totals. Where the database cannot be asked, only `secateur_database_up` 0 is left."""

    def __init__(self, sessions: sessionmaker[Session], fresh_seconds: float) -> None:
        self._sessions = sessions
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._read_at = -CACHED_SECONDS

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() >= self._read_at + CACHED_SECONDS:
                self._metrics = self._read()
                self._read_at = time.monotonic()
            yield from self._metrics

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def _read(self) -> list[Metric]:
        up = GaugeMetricFamily("secateur_database_up", "Whether the database answered for this scrape.")
        try:
            with transaction(self._sessions) as session:
                session.execute(text(f"SET LOCAL statement_timeout = '{_TIMEOUT}'"))
                metrics = [
                    *_queues(fleet.queue_figures(session)),
                    *_workers(fleet.workers(session, self._fresh_seconds)),
                    *_attempts(fleet.attempt_totals(session)),
                    _stages(fleet.stage_totals(session)),
                    *_webhooks(waiting_figures(session)),
                    *_duties(known_duties(session)),
                ]
        except SQLAlchemyError as error:
            log.warning("no metrics of the fleet", error=str(error).partition("\n")[0])
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *metrics]


def _queues(figures: Sequence[fleet.QueueFigures]) -> list[Metric]:
    depth = GaugeMetricFamily("secateur_queue_jobs", "Jobs that wait, by queue.", labels=["queue"])
    age = GaugeMetricFamily(
        "secateur_queue_oldest_seconds", "Age of the oldest job that waits, since it was submitted.", labels=["queue"]
    )
    running = GaugeMetricFamily("secateur_running_jobs", "Jobs a worker holds, by queue.", labels=["queue"])
    for each in figures:
        depth.add_metric([each.queue], each.queued)
        age.add_metric([each.queue], each.oldest_seconds)
        running.add_metric([each.queue], each.running)
    return [depth, age, running]


def _workers(rows: Sequence[WorkerRow]) -> list[Metric]:
    count = GaugeMetricFamily(
        "secateur_workers", "Workers that gave a sign of life lately, by what they do.", labels=["queue", "state"]
    )
    states: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(WORKER_STATES, 0))
    labels = ["worker", "queue", "host"]
    device = GaugeMetricFamily("secateur_worker_device_memory_bytes", "Memory of a worker's device.", labels=labels)
    used = GaugeMetricFamily(
        "secateur_worker_device_memory_used_bytes", "What of it is used, by whomever.", labels=labels
    )
    memory = GaugeMetricFamily("secateur_worker_memory_bytes", "Memory a worker may use.", labels=labels)
    disk = GaugeMetricFamily(
        "secateur_worker_disk_free_bytes", "Free space on the disk a worker works on.", labels=labels
    )
    folders = GaugeMetricFamily(
        "secateur_worker_work_folders", "Jobs that have a work folder on a worker's node.", labels=labels
    )
    work = GaugeMetricFamily("secateur_worker_work_bytes", "Bytes of the work folders there.", labels=labels)
    for row in rows:
        states[row.queue][row.state] += 1
        for family, value in (
            (device, row.device_memory_bytes),
            (used, row.device_memory_used_bytes),
            (memory, row.memory_bytes),
            (disk, row.disk_free_bytes),
            (folders, row.work_folders),
            (work, row.work_bytes),
        ):
            if value is not None:
                family.add_metric([row.id, row.queue, row.hostname], value)
    for queue, by_state in states.items():
        for state, number in by_state.items():
            count.add_metric([queue, state], number)
    return [count, device, used, memory, disk, folders, work]


def _attempts(rows: Sequence[AttemptTotalRow]) -> list[Metric]:
    labels = ["queue", "method", "outcome", "error_code"]
    ended = CounterMetricFamily(
        "secateur_attempts_ended",
        "Attempts that ended; outcome lost is a lease that ran out, released a worker that drained.",
        labels=labels,
    )
    seconds = CounterMetricFamily("secateur_attempt_seconds", "Worker time of attempts that ended.", labels=labels)
    for row in rows:
        of = [row.queue, row.method, row.outcome, row.error_code]
        ended.add_metric(of, row.attempts)
        seconds.add_metric(of, row.seconds)
    return [ended, seconds]


def _stages(rows: Sequence[StageTotalRow]) -> Metric:
    histogram = HistogramMetricFamily(
        "secateur_stage_seconds", "Time of attempts that ended in each stage.", labels=["stage", "outcome"]
    )
    grouped: dict[tuple[str, str], dict[float, StageTotalRow]] = defaultdict(dict)
    for row in rows:
        grouped[row.stage, row.outcome][row.at_most] = row
    for (stage, outcome), buckets in sorted(grouped.items()):
        below, cumulative = 0, []
        for bound in sorted({*fleet.STAGE_BOUNDS, *buckets}):
            below += buckets[bound].attempts if bound in buckets else 0
            cumulative.append(("+Inf" if bound == inf else str(bound), below))
        histogram.add_metric([stage, outcome], cumulative, sum(each.seconds for each in buckets.values()))
    return histogram


def _webhooks(figures: WaitingFigures) -> list[Metric]:
    pending = GaugeMetricFamily("secateur_webhook_pending", "Deliveries that wait for endpoints that are enabled.")
    overdue = GaugeMetricFamily(
        "secateur_webhook_overdue_seconds", "How long the longest delivery that is due waits; failing endpoints apart."
    )
    pending.add_metric([], figures.pending)
    overdue.add_metric([], figures.overdue_seconds)
    return [pending, overdue]


def _duties(rows: Sequence[DutyRow]) -> list[Metric]:
    done = GaugeMetricFamily(
        "secateur_dispatcher_duty_last_success_timestamp_seconds",
        "When a dispatcher last did this duty, in seconds since the epoch.",
        labels=["duty"],
    )
    every = GaugeMetricFamily(
        "secateur_dispatcher_duty_interval_seconds", "How often a dispatcher does this duty.", labels=["duty"]
    )
    for row in rows:
        done.add_metric([row.name], row.succeeded_at.timestamp())
        every.add_metric([row.name], row.every_seconds)
    return [done, every]
