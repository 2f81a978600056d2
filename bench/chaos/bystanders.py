"""Bystanders of a fault: a team that has no part in it, and what it asks of the service meanwhile.

Every question is noted in the journal as `asked`: the fault it was `during`, what was asked, how many seconds the
answer took (None where none came), and how many it may take.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx

from bench.chaos.bodies import MODEL, write_model
from bench.chaos.installation import BYSTANDERS, Installation, Journal, add_endpoint
from bench.parts import until
from secateur import Client

NOBODYS_QUEUE: Final = "nobodys"
"""A queue without workers: jobs in it stay as they are until they are cancelled."""
JOB: Final[Mapping[str, Any]] = {"model": MODEL, "method": "magnitude", "sparsity": 0.5}
_LOOK_SECONDS = 0.5
_PREPARE_SECONDS = 90.0

DUE: Final = "UPDATE triggers SET next_fire_at = clock_timestamp() WHERE id = %s"
AWAITING: Final = """UPDATE jobs SET awaits_discovery = 'discovery_none', available_at = '9000-01-01',
    dispatched_at = NULL, body = body || '{}' WHERE id = %s"""
"""Makes a queued job one whose discovery is over: the dispatcher resolves it."""


@contextmanager
def started(threads: Sequence[threading.Thread], over: threading.Event) -> Iterator[None]:
    """Have threads run inside the context; at its end `over` is set, and they are waited for."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


class Team:
    """A team that asks of an installation, and may have triggers and publications."""

    def __init__(self, installation: Installation, journal: Journal, name: str) -> None:
        self.installation = installation
        self.journal = journal
        self.name = name
        self.numbers = itertools.count(1)

    def asked(self, method: str, path: str, body: Any = None, **where: Any) -> Any:
        """Return the answer to a request. Raises httpx.HTTPError where it is none of success."""
        return self.installation.request(self.name, method, path, body, **where)

    def submit(self, body: Mapping[str, Any]) -> str:
        return str(self.asked("POST", "/v1/jobs", dict(body))["id"])

    def sweep(self, model: str) -> str:
        """Submit a sweep of one point, whose job nobody takes; return its id."""
        job = {"model": model, "queue": NOBODYS_QUEUE}
        grid = {"method": ["magnitude"], "sparsity": [0.5]}
        return str(self.asked("POST", "/v1/sweeps", {"job": job, "grid": grid})["id"])

    def add_trigger(self, template: Mapping[str, Any], name: str = "yearly") -> str:
        """Add a trigger whose time comes once a year; return its id."""
        body = {"name": name, "template": dict(template), "schedule": {"cron": "0 0 1 1 *"}}
        return str(self.asked("POST", "/v1/triggers", body)["id"])

    def publish(self, job: str, prefix: str) -> str:
        """Have an artifact published to the installation's own store; return the publication's id."""
        body = {
            "to": f"s3://{self.installation.bucket}/{prefix}",
            "access_key": self.installation.store_access_key,
            "secret_key": self.installation.store_secret_key,
            "endpoint": self.installation.store_endpoint,
            "region": "us-east-1",
        }
        return str(self.asked("POST", f"/v1/jobs/{job}/publish", body)["id"])


class Bystanders(Team):
    """One team with a model, an artifact, an endpoint and a trigger whose schedule comes once a year."""

    def __init__(self, installation: Installation, journal: Journal) -> None:
        super().__init__(installation, journal, BYSTANDERS)
        add_endpoint(installation, journal, BYSTANDERS, "all")
        with Client(installation.apis[0], installation.admin_keys[BYSTANDERS]) as client:
            client.upload_model(MODEL, write_model(installation.folder / "clients" / BYSTANDERS / MODEL, 0))
            self._artifact = client.submit(**JOB).id
            until(lambda: client.job(self._artifact).status == "succeeded", _PREPARE_SECONDS)
        self._trigger = self.add_trigger({**JOB, "queue": NOBODYS_QUEUE})

    @contextmanager
    def asking(self, during: str, *questions: str) -> Iterator[None]:
        """Ask all of it at the same time, from now on; at the end wait for the answers that are still to come."""
        over = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(during, name, over), daemon=True) for name in questions]
        with started(threads, over):
            yield

    def _ask(self, during: str, name: str, over: threading.Event) -> None:
        """Ask again and again what is answered at once; what has to happen is waited for, once."""
        bound, ask = QUESTIONS[name]
        longest: float | None = 0.0
        error: str | None = None
        while longest is not None:
            began = time.monotonic()
            try:
                ask(self, bound)
                longest = max(longest, time.monotonic() - began)
            except (httpx.HTTPError, TimeoutError) as raised:
                longest, error = None, f"{type(raised).__name__}: {raised}"[:300]
            if name not in REPEATED or over.wait(_LOOK_SECONDS):
                break
        self.journal.note("asked", during=during, what=name, seconds=longest, bound=bound, error=error)

    def _health(self, bound: float) -> None:
        for api in self.installation.apis:
            httpx.get(f"{api}/healthz", timeout=bound).raise_for_status()

    def _call(self, bound: float) -> None:
        for api in self.installation.apis:
            self.asked("GET", "/v1/jobs?limit=5", api=api, seconds=bound)

    def _fired(self, bound: float) -> None:
        """Wait until a schedule that has just come due has made its job."""
        path = f"/v1/triggers/{self._trigger}/firings"
        seen = {firing["id"] for firing in self.asked("GET", path)["data"]}
        self.installation.change_rows(DUE, self._trigger)

        def new() -> list[str]:
            return [each["job_id"] for each in self.asked("GET", path)["data"] if each["id"] not in seen]

        [job] = until(new, bound, "the firing")
        self._cancel(job)

    def _delivered(self, bound: float) -> None:
        """Wait until the receiver has been told of a new job."""
        job = self.submit({**JOB, "queue": NOBODYS_QUEUE})
        until(lambda: job in self.installation.received.read_text("utf-8"), bound, "the delivery")
        self._cancel(job)

    def _swept(self, bound: float) -> None:
        """Wait until the first job of a new sweep is queued."""
        sweep = self.sweep(MODEL)
        path = "/v1/jobs?status=queued&limit=200"

        def queued() -> list[str]:
            return [each["id"] for each in self.asked("GET", path)["data"] if each["metadata"].get("sweep") == sweep]

        [job] = until(queued, bound, "the sweep's job")
        self._cancel(job)

    def _published(self, bound: float) -> None:
        path = f"/v1/publications/{self.publish(self._artifact, f'published/{next(self.numbers)}')}"
        until(lambda: self.asked("GET", path)["status"] in ("succeeded", "failed"), bound, "the publication")
        ended = self.asked("GET", path)
        if ended["status"] == "failed":
            raise TimeoutError(f"the publication failed: {json.dumps(ended['error'])}")

    def _resolved(self, bound: float) -> None:
        """Wait until a job whose model is known by now is one that workers could take."""
        job = self.submit({**JOB, "queue": NOBODYS_QUEUE})
        self.installation.change_rows(AWAITING, job)
        path = f"/v1/jobs/{job}/events?limit=100"
        until(lambda: "is known now" in json.dumps(self.asked("GET", path)["data"]), bound, "the job's model")
        self._cancel(job)

    def _cancel(self, job: str) -> None:
        self.asked("POST", f"/v1/jobs/{job}/cancel")


QUESTIONS: Final[dict[str, tuple[float, Callable[[Bystanders, float], None]]]] = {
    "health": (5.0, Bystanders._health),  # the liveness probe's time in deploy/kubernetes
    "call": (10.0, Bystanders._call),
    "trigger": (20.0, Bystanders._fired),
    "webhook": (20.0, Bystanders._delivered),
    "sweep": (20.0, Bystanders._swept),
    "awaiting": (20.0, Bystanders._resolved),
    "publication": (30.0, Bystanders._published),
}
"""Each question, and how many seconds its answer may take on a machine that is busy."""
REPEATED: Final[Collection[str]] = ("health", "call")
