"""Metrics for Prometheus: the fleet's, read from the database, and the state of database, broker and store.

Any API process answers for all workers, and no count is lost with a killed worker. Broker and store are each asked in a
thread of their own, with a short time limit. If one of them hangs, a scrape reports that it does not answer, and
contains everything else.
"""

import threading
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import structlog
from celery import Celery
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.discoveries.queue import discovery_totals, open_discoveries
from core.service.discoveries.tables import DiscoveryTotalRow
from core.service.duties.tables import DutyRow, RowFailureTotalRow
from core.service.duties.times import failed_rows, known_duties
from core.service.jobs import fleet
from core.service.jobs.hints import Hints
from core.service.jobs.metrics_tables import AttemptTotalRow, StageTotalRow
from core.service.jobs.queue import WORKER_STATES
from core.service.jobs.tables import WorkerRow
from core.service.retention.unknown import last_count
from core.service.webhooks.delivery_log import WaitingFigures, waiting_figures
from core.settings import Settings
from core.storage import Store

CACHED_SECONDS = 5.0
"""Minimum time between two readings, for any number of scrapes."""
LONGEST_ANSWER_SECONDS = 2.0
_TIMEOUT = "3s"
_MOST_TEAMS = 20
"""Maximum number of teams with metrics of their own: those whose oldest job has waited longest."""

log = structlog.get_logger()


class CachedCollector(Collector):
    """Metrics that one scrape reads and later scrapes reuse for a short time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._read_at = -CACHED_SECONDS

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() >= self._read_at + CACHED_SECONDS:
                self._metrics = self.read()
                self._read_at = time.monotonic()
            yield from self._metrics

    def describe(self) -> list[Metric]:
        """Return nothing: registering the collector must not read anything."""
        return []

    @abstractmethod
    def read(self) -> list[Metric]:
        """Return newly read metrics."""


class FleetCollector(CachedCollector):
    """Queues, workers and totals. If the database does not answer, only `secateur_database_up` 0 is returned."""

    def __init__(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        super().__init__()
        self._sessions = sessions
        self._settings = settings

    def read(self) -> list[Metric]:
        up = GaugeMetricFamily("secateur_database_up", "Whether the database answered for this scrape.")
        try:
            with transaction(self._sessions) as session:
                session.execute(text(f"SET LOCAL statement_timeout = '{_TIMEOUT}'"))
                waiting = fleet.waiting_jobs(session)
                metrics = [
                    *_queues(fleet.queue_figures(session, waiting), self._settings.queues),
                    *_teams(waiting),
                    *_workers(fleet.workers(session, self._settings.worker_fresh_seconds)),
                    *_attempts(fleet.attempt_totals(session)),
                    _stages(fleet.stage_totals(session)),
                    *_webhooks(waiting_figures(session)),
                    *_duties(known_duties(session)),
                    *_failed_rows(failed_rows(session)),
                    _unknown_artifacts(last_count(session)),
                    *_discoveries(open_discoveries(session), discovery_totals(session)),
                ]
        except SQLAlchemyError as error:
            log.warning("no metrics of the fleet", error=str(error).partition("\n")[0])
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *metrics]


def _unknown_artifacts(count: int) -> Metric:
    return GaugeMetricFamily(
        "secateur_store_unknown_artifacts",
        "Jobs that the store has artifacts of and the database does not know.",
        value=count,
    )


def _queues(figures: Sequence[fleet.QueueFigures], listed: Sequence[str]) -> list[Metric]:
    """Return the metrics of queues, including the `listed` ones without jobs and workers.

    An autoscaler must see a 0, not a missing figure.
    """
    depth = GaugeMetricFamily("secateur_queue_jobs", "Jobs that wait, by queue.", labels=["queue"])
    age = GaugeMetricFamily(
        "secateur_queue_oldest_seconds", "Age of the oldest job that waits, since it was submitted.", labels=["queue"]
    )
    running = GaugeMetricFamily("secateur_running_jobs", "Jobs a worker holds, by queue.", labels=["queue"])
    runnable = GaugeMetricFamily(
        "secateur_queue_runnable_jobs",
        "Jobs that wait and that their teams' quotas let run, by queue.",
        labels=["queue"],
    )
    wanted = GaugeMetricFamily(
        "secateur_queue_wanted_workers", "Workers a queue has work for: runnable and running jobs.", labels=["queue"]
    )
    seen = {each.queue for each in figures}
    idle = [fleet.QueueFigures(queue, 0, 0.0, 0, 0) for queue in dict.fromkeys(listed) if queue not in seen]
    for each in (*figures, *idle):
        depth.add_metric([each.queue], each.queued)
        age.add_metric([each.queue], each.oldest_seconds)
        running.add_metric([each.queue], each.running)
        runnable.add_metric([each.queue], each.runnable)
        wanted.add_metric([each.queue], each.runnable + each.running)
    return [depth, age, running, runnable, wanted]


def _teams(waiting: Sequence[fleet.Waiting]) -> list[Metric]:
    depth = GaugeMetricFamily(
        "secateur_team_waiting_jobs", f"Jobs that wait, of the {_MOST_TEAMS} teams that wait longest.", labels=["team"]
    )
    age = GaugeMetricFamily(
        "secateur_team_oldest_seconds", "Age of the oldest job of a team that waits, of the same.", labels=["team"]
    )
    by_team: dict[str, list[fleet.Waiting]] = defaultdict(list)
    for each in waiting:
        by_team[each.team].append(each)
    oldest = {team: max(each.oldest_seconds for each in of) for team, of in by_team.items()}
    for team in sorted(oldest, key=lambda team: (-oldest[team], team))[:_MOST_TEAMS]:
        depth.add_metric([team], sum(each.queued for each in by_team[team]))
        age.add_metric([team], oldest[team])
    return [depth, age]


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
    utilisation = GaugeMetricFamily(
        "secateur_worker_device_utilisation", "Share of the last second in which the device computed.", labels=labels
    )
    celsius = GaugeMetricFamily("secateur_worker_device_celsius", "Temperature of the device.", labels=labels)
    errors = GaugeMetricFamily(
        "secateur_worker_device_uncorrected_errors",
        "Errors of the device's memory that could not be corrected, since its driver was loaded.",
        labels=labels,
    )
    failed = GaugeMetricFamily(
        "secateur_worker_device_failed", "1 where a worker drains because its device failed.", labels=labels
    )
    for row in rows:
        states[row.queue][row.state] += 1
        for family, value in (
            (device, row.device_memory_bytes),
            (used, row.device_memory_used_bytes),
            (memory, row.memory_bytes),
            (disk, row.disk_free_bytes),
            (folders, row.work_folders),
            (work, row.work_bytes),
            (utilisation, row.device_utilisation),
            (celsius, row.device_celsius),
            (errors, row.device_uncorrected_errors),
            (failed, int(row.device_has_failed)),
        ):
            if value is not None:
                family.add_metric([row.id, row.queue, row.hostname], value)
    for queue, by_state in states.items():
        for state, number in by_state.items():
            count.add_metric([queue, state], number)
    return [count, device, used, memory, disk, folders, work, utilisation, celsius, errors, failed]


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


def _failed_rows(rows: Sequence[RowFailureTotalRow]) -> list[Metric]:
    failures = CounterMetricFamily(
        "secateur_dispatcher_row_failures",
        "Failures of single rows of a duty, whose others went on.",
        labels=["duty"],
    )
    parked = CounterMetricFamily(
        "secateur_dispatcher_rows_parked", "Rows that a duty gave up for failing again and again.", labels=["duty"]
    )
    for row in rows:
        failures.add_metric([row.duty], row.failures)
        parked.add_metric([row.duty], row.parked)
    return [failures, parked]


def _discoveries(unfinished: Mapping[str, int], totals: Sequence[DiscoveryTotalRow]) -> list[Metric]:
    waiting = GaugeMetricFamily("secateur_discoveries", "Discoveries that are not over, by state.", labels=["state"])
    for state, number in unfinished.items():
        waiting.add_metric([state], number)
    ended = CounterMetricFamily(
        "secateur_discoveries_ended", "Discoveries that ended; no error code is one found.", labels=["error_code"]
    )
    seconds = CounterMetricFamily(
        "secateur_discovery_seconds", "Time of discoveries that ended, in their last attempt.", labels=["error_code"]
    )
    for row in totals:
        ended.add_metric([row.error_code], row.discoveries)
        seconds.add_metric([row.error_code], row.seconds)
    return [waiting, ended, seconds]


def metrics_registry(
    settings: Settings, sessions: sessionmaker[Session], store: Store, broker: Celery
) -> CollectorRegistry:
    """Return the registry of all metrics: of this process, the fleet, broker and store."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(REGISTRY)
    registry.register(FleetCollector(sessions, settings))
    registry.register(BackingCollector(store, broker, settings.queues))
    return registry


@dataclass(frozen=True)
class _Broker:
    hints: dict[str, int]
    memory: tuple[int, int] | None


class BackingCollector(CachedCollector):
    """Metrics of broker and store; one scrape reads them and later scrapes reuse them for a short time."""

    def __init__(self, store: Store, broker: Celery, queues: Sequence[str]) -> None:
        super().__init__()
        self._store = store
        self._hints = Hints(broker)
        self._queues = tuple(dict.fromkeys(queues))
        self._asked = [_Question("broker", self._ask_broker), _Question("store", self._ask_store)]
        self._broker: _Broker | None = None
        self._store_is_up = False

    def read(self) -> list[Metric]:
        self._broker, self._store_is_up = None, False
        for question in self._asked:
            question.ask()
        until = time.monotonic() + LONGEST_ANSWER_SECONDS
        for question in self._asked:
            question.wait(until)
        broker = self._broker
        up = GaugeMetricFamily("secateur_broker_up", "Whether the broker answered this process.")
        up.add_metric([], broker is not None)
        hints = GaugeMetricFamily("secateur_broker_hints", "Hints in the broker that no worker took.", labels=["queue"])
        used = GaugeMetricFamily("secateur_broker_memory_used_bytes", "Memory Redis uses.")
        limit = GaugeMetricFamily("secateur_broker_memory_limit_bytes", "Memory Redis may use; 0: no limit.")
        if broker is not None:
            for queue, waiting in broker.hints.items():
                hints.add_metric([queue], waiting)
            if broker.memory is not None:
                used.add_metric([], broker.memory[0])
                limit.add_metric([], broker.memory[1])
        store = GaugeMetricFamily("secateur_store_up", "Whether the store answered this process.")
        store.add_metric([], self._store_is_up)
        return [up, hints, used, limit, store]

    def _ask_broker(self) -> None:
        self._broker = _Broker(
            {queue: self._hints.count_waiting(queue) for queue in self._queues}, self._hints.memory()
        )

    def _ask_store(self) -> None:
        self._store_is_up = self._store.is_usable()


class _Question:
    """Question that is asked in a thread, and asked again only after it has ended."""

    def __init__(self, name: str, ask: Callable[[], None]) -> None:
        self._name = name
        self._ask = ask
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=f"metrics {self._name}", daemon=True)
            self._thread.start()

    def wait(self, until: float) -> None:
        assert self._thread is not None
        self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        try:
            self._ask()
        except Exception as error:  # Each transport raises errors of its own; any error counts as no answer.
            log.warning("no metrics of what the service stands on", of=self._name, error=str(error).partition("\n")[0])
