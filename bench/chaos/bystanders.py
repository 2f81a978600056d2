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
from types import MappingProxyType
from typing import Any, Final

import httpx

from bench.chaos.bodies import MODEL, write_model
from bench.chaos.installation import BYSTANDERS, Installation, change_rows
from bench.chaos.journal import Journal
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


class Bystanders:
    """One team with a model, an artifact, an endpoint and a trigger whose schedule comes once a year."""

    def __init__(self, installation: Installation, journal: Journal) -> None:
        self._installation = installation
        self._journal = journal
        self._numbers = itertools.count(1)
        key = installation.admin_keys[BYSTANDERS]
        add_endpoint(installation, journal, BYSTANDERS, "all")
        with Client(installation.apis[0], key) as client:
            client.upload_model(MODEL, write_model(installation.folder / "clients" / BYSTANDERS / MODEL, 0))
            job = client.submit(**JOB)
            until(lambda: client.job(job.id).status == "succeeded", _PREPARE_SECONDS)
            self._artifact = job.id
        self._trigger = add_trigger(installation, BYSTANDERS, {**JOB, "queue": NOBODYS_QUEUE})

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
        self._journal.note("asked", during=during, what=name, seconds=longest, bound=bound, error=error)

    def health(self, bound: float) -> None:
        for api in self._installation.apis:
            httpx.get(f"{api}/healthz", timeout=bound).raise_for_status()

    def call(self, bound: float) -> None:
        for api in self._installation.apis:
            request(self._installation, BYSTANDERS, "GET", "/v1/jobs?limit=5", base=api, seconds=bound)

    def trigger(self, bound: float) -> None:
        """Wait until a schedule that has just come due has made its job."""
        seen = {firing["id"] for firing in self._firings()}
        change_rows(self._installation, DUE, self._trigger)
        [fired] = until(lambda: [each for each in self._firings() if each["id"] not in seen], bound, "the firing")
        self._cancel(fired["job_id"])

    def webhook(self, bound: float) -> None:
        """Wait until the receiver has been told of a new job."""
        job = self._submit()
        until(lambda: job in self._installation.received.read_text("utf-8"), bound, "the delivery")
        self._cancel(job)

    def sweep(self, bound: float) -> None:
        """Wait until the first job of a new sweep is queued."""
        body = {"job": {"model": MODEL, "queue": NOBODYS_QUEUE}, "grid": {"method": ["magnitude"], "sparsity": [0.5]}}
        sweep = self._asked("POST", "/v1/sweeps", body)["id"]
        path = "/v1/jobs?status=queued&limit=200"

        def queued() -> list[str]:
            return [each["id"] for each in self._asked("GET", path)["data"] if each["metadata"].get("sweep") == sweep]

        [job] = until(queued, bound, "the sweep's job")
        self._cancel(job)

    def publication(self, bound: float) -> None:
        made = publish(self._installation, BYSTANDERS, self._artifact, f"published/{next(self._numbers)}")
        path = f"/v1/publications/{made}"
        until(lambda: self._asked("GET", path)["status"] in ("succeeded", "failed"), bound, "the publication")
        ended = self._asked("GET", path)
        if ended["status"] == "failed":
            raise TimeoutError(f"the publication failed: {json.dumps(ended['error'])}")

    def awaiting(self, bound: float) -> None:
        """Wait until a job whose model is known by now is one that workers could take."""
        job = self._submit()
        change_rows(self._installation, AWAITING, job)
        path = f"/v1/jobs/{job}/events?limit=100"
        until(lambda: "is known now" in json.dumps(self._asked("GET", path)["data"]), bound, "the job's model")
        self._cancel(job)

    def _submit(self) -> str:
        return str(self._asked("POST", "/v1/jobs", {**JOB, "queue": NOBODYS_QUEUE})["id"])

    def _cancel(self, job: str) -> None:
        self._asked("POST", f"/v1/jobs/{job}/cancel")

    def _firings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._asked("GET", f"/v1/triggers/{self._trigger}/firings")["data"]
        return found

    def _asked(self, method: str, path: str, body: Any = None) -> Any:
        return request(self._installation, BYSTANDERS, method, path, body)


Ask = Callable[[Bystanders, float], None]
QUESTIONS: Final[dict[str, tuple[float, Ask]]] = {
    "health": (5.0, Bystanders.health),  # the liveness probe's time in deploy/kubernetes
    "call": (10.0, Bystanders.call),
    "trigger": (20.0, Bystanders.trigger),
    "webhook": (20.0, Bystanders.webhook),
    "sweep": (20.0, Bystanders.sweep),
    "awaiting": (20.0, Bystanders.awaiting),
    "publication": (30.0, Bystanders.publication),
}
"""Each question, and how many seconds its answer may take on a machine that is busy."""
REPEATED: Final[Collection[str]] = ("health", "call")


def request(
    installation: Installation,
    team: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    base: str | None = None,
    seconds: float = 30.0,
) -> Any:
    """Return the answer to a team's request. Raises httpx.HTTPError where it is none of success."""
    headers = {"Authorization": f"Bearer {installation.admin_keys[team]}"}
    url = f"{base or installation.apis[-1]}{path}"
    answer = httpx.request(method, url, json=body, headers=headers, timeout=seconds, trust_env=False)
    return answer.raise_for_status().json()


def add_endpoint(
    installation: Installation,
    journal: Journal,
    team: str,
    name: str,
    types: Sequence[str] = (),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add an endpoint at the receiver, of everything where no types are given, and note it in the journal."""
    chosen = {"types": list(types), "metadata": dict(metadata)}
    made = request(installation, team, "POST", "/v1/webhooks", {"url": f"{installation.hooks}/{team}/{name}", **chosen})
    journal.note("endpoint", team=team, id=made["id"], path=f"/{team}/{name}", secret=made["secret"], **chosen)


def add_trigger(installation: Installation, team: str, template: Mapping[str, Any], name: str = "yearly") -> str:
    """Add a trigger whose time comes once a year; return its id."""
    body = {"name": name, "template": dict(template), "schedule": {"cron": "0 0 1 1 *"}}
    return str(request(installation, team, "POST", "/v1/triggers", body)["id"])


def publish(installation: Installation, team: str, job: str, prefix: str) -> str:
    """Have an artifact published to the installation's own store; return the publication's id."""
    body = {
        "to": f"s3://{installation.bucket}/{prefix}",
        "access_key": installation.store_access_key,
        "secret_key": installation.store_secret_key,
        "endpoint": installation.faulty_store_endpoint,
        "region": "us-east-1",
    }
    return str(request(installation, team, "POST", f"/v1/jobs/{job}/publish", body)["id"])
