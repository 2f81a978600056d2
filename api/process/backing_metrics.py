"""Broker and store in Prometheus' words: whether they answer this process, and what lies in the broker.

Each is asked in a thread of its own that is given a moment: where it hangs, a scrape says that it does not answer, and
everything else that there is to say.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from celery import Celery
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy.orm import Session, sessionmaker

from api.process.fleet_metrics import CachedCollector, FleetCollector
from core.service.jobs.hints import Hints
from core.settings import Settings
from core.storage import Store

LONGEST_ANSWER_SECONDS = 2.0

log = structlog.get_logger()


def metrics_registry(
    settings: Settings, sessions: sessionmaker[Session], store: Store, broker: Celery
) -> CollectorRegistry:
    """Return all there is to scrape: what this process measured of itself, the fleet, and what both stand on."""
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
    """Broker and store, asked by one scrape for all that come soon after."""

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
            for queue, lying in broker.hints.items():
                hints.add_metric([queue], lying)
            if broker.memory is not None:
                used.add_metric([], broker.memory[0])
                limit.add_metric([], broker.memory[1])
        store = GaugeMetricFamily("secateur_store_up", "Whether the store answered this process.")
        store.add_metric([], self._store_is_up)
        return [up, hints, used, limit, store]

    def _ask_broker(self) -> None:
        self._broker = _Broker({queue: self._hints.lying(queue) for queue in self._queues}, self._hints.memory())

    def _ask_store(self) -> None:
        self._store_is_up = self._store.is_usable()


class _Question:
    """Something that is asked in a thread; asked again once it is over, and not before."""

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
        except Exception as error:  # each transport has errors of its own; what did not answer is told as such
            log.warning("no metrics of what the service stands on", of=self._name, error=str(error).partition("\n")[0])
