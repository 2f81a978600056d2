"""The clients of a run: several for each team, each with a job at a time. They submit, watch, cancel, try again, upload
and download with the SDK, through whichever API process answers, and note what they were told.
"""

import random
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx

from bench.chaos.installation import OUTSIDERS, Installation, add_endpoint
from secateur import Client, Job, errors
from tests.runner.models import write_model, write_words

MODEL, TEXT = "tiny", "words"
CLIENTS_OF_TEAM = 3
ENDS = ("job.succeeded", "job.failed", "job.cancelled")
_ANSWER_SECONDS = 20.0
"""An answer is waited for this long: an API process may be frozen for longer."""
_PATIENCE_SECONDS = 240.0
"""A call is made again for this long; nothing that is done to an installation lasts longer."""
_END_SECONDS = 120.0
_LOOK_SECONDS = 0.7
_PASSING = (
    errors.Unreachable,
    errors.ServerError,
    errors.TooManyRequests,
    errors.SlowRequest,
    errors.DownloadInterrupted,
    errors.UploadInterrupted,
    errors.Conflict,  # such as with what another process has in its hands, frozen or not
    httpx.TransportError,
)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Kind:
    """A kind of job: how often it comes, its body but for what all have in common, and how it ends where nothing comes
    between: None for well, else the code of its error.
    """

    weight: int
    body: Mapping[str, Any]
    ends: str | None = None


HALF: Final[dict[str, Any]] = {"method": "magnitude", "sparsity": 0.5}
_CALIBRATION = {"dataset": TEXT, "samples": 8, "sequence_length": 32}
_WANDA = {"method": "wanda", "sparsity": 0.5, "calibration": _CALIBRATION}
_EVALUATED = {"evaluation": {"datasets": [TEXT], "samples": 4, "sequence_length": 32}}
_TRAINED = {"recovery": {"method": "finetune", "steps": 4, "batch_size": 2, "checkpoint_every": 2}}

KINDS = (
    Kind(3, HALF),
    Kind(2, {"method": "magnitude", "pattern": "2:4", **_EVALUATED}),
    Kind(3, _WANDA | _EVALUATED),
    Kind(3, {"method": "sparsegpt", "sparsity": 0.6, "calibration": _CALIBRATION}),
    Kind(2, {"method": "llm-pruner", "sparsity": 0.2, "calibration": _CALIBRATION}),
    Kind(1, _WANDA | {"output": {"format": "packed"}}),
    Kind(2, _WANDA | _EVALUATED | _TRAINED),
    Kind(1, HALF | _EVALUATED | {"gates": {"max_perplexity_ratio": 0.001}}, ends="gate_missed"),
    Kind(1, HALF | {"time_limit_seconds": 0.05}, ends="time_limit_exceeded"),
)


@contextmanager
def traffic(installation: Installation, seed: int) -> Iterator[None]:
    """Inside the context every team has its model and its text, and the clients of teams with endpoints are at work.

    The journal has what was answered: `accepted`, `watched`, `endpoint`, and `refused` for what should never have been.
    """
    stop = threading.Event()
    threads = []
    for team in installation.admin_keys:
        names = [f"{team}-{seed}-{number}" for number in range(CLIENTS_OF_TEAM)]
        clients = [ChaosClient(installation, team, name, stop) for name in names]
        clients[0].prepare()
        if team != OUTSIDERS:
            add_endpoint(installation, team, "all")
            add_endpoint(installation, team, "ends", types=ENDS, metadata={"told": "yes"})
            threads += [threading.Thread(target=client.run, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()  # they end what they are at
        for thread in threads:
            thread.join(_END_SECONDS)


class GaveUp(Exception):
    """Nothing answered for longer than a client waits, or clients were told to stop meanwhile."""


class ChaosClient:
    """One client, in one thread. It goes on until `stop`; what cannot be done for too long is left. What a server
    should never answer is noted as `refused`.
    """

    def __init__(self, installation: Installation, team: str, name: str, stop: threading.Event) -> None:
        self._team = team
        self._stop = stop
        self._name = name
        self._chosen = random.Random(name)
        self._installation = installation
        self._folder = installation.folder / "clients" / name
        self._text = write_words(self._folder / "words.txt")
        self._uploads = 0

    def prepare(self) -> None:
        """Upload the team's model and text. Raises GaveUp."""
        model = write_model(self._folder / MODEL, layers=2)
        self._use("upload the model", lambda client: client.upload_model(MODEL, model))
        self._use("upload the text", lambda client: client.upload_dataset(TEXT, self._text))

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except GaveUp:
                continue
            except Exception as error:  # a client that ends would leave the rest of the run without its part
                self._refused("a client's turn", f"{type(error).__name__}: {error}")
                self._stop.wait(1)

    def _turn(self) -> None:
        if self._chosen.random() < 0.15:
            self._uploads += 1
            name = f"{self._name}-{self._uploads}"
            self._use("upload a text", lambda client: client.upload_dataset(name, self._text))
        job = self._submit(self._chosen.choices(KINDS, [kind.weight for kind in KINDS])[0])
        if job is None:
            return
        what = self._chosen.random()
        if what < 0.2:
            self._stop.wait(self._chosen.uniform(0, 4))
            self._ask("cancel", job)
        elif what < 0.7:
            self._watch(job)
        ended = self._wait(job)
        if ended is not None and ended.status != "succeeded" and self._chosen.random() < 0.4:
            self._ask("retry", job)
            ended = self._wait(job)
        if ended is not None and ended.status == "succeeded" and self._chosen.random() < 0.5:
            place = self._folder / job
            self._use("download an artifact", lambda client: client.download(job, place))
            shutil.rmtree(place, ignore_errors=True)

    def _submit(self, kind: Kind) -> str | None:
        """Submit with an idempotency key; now and then the same once more, as after an answer that was lost."""
        key = f"{self._name}-{uuid.UUID(int=self._chosen.getrandbits(128))}"
        metadata = {"submission": key, "told": self._chosen.choice(("yes", "no"))}
        body: dict[str, Any] = {"model": MODEL, "metadata": metadata, **kind.body}
        job = None
        for _ in range(self._chosen.choice((1, 1, 1, 2))):
            accepted = self._use("submit", lambda client: client.submit(idempotency_key=key, **body))
            if accepted is not None:
                job = accepted.id
                self._note("accepted", job=job, key=key, ends=kind.ends)
        return job

    def _ask(self, what: str, job: str) -> None:
        """Ask for a job to be cancelled or tried again, unless it is too late for that."""

        def ask(client: Client) -> None:
            with suppress(errors.Conflict):
                client.cancel(job) if what == "cancel" else client.retry(job)

        self._use(what, ask)

    def _wait(self, job: str) -> Job | None:
        """Return the job as it ended; None where the clients stop before."""
        while not self._stop.is_set():
            found = self._use("look at a job", lambda client: client.job(job))
            if found is not None and found.finished:
                return found
            self._stop.wait(_LOOK_SECONDS)
        return None

    def _watch(self, job: str) -> None:
        """Follow the events from the first on, now and then dropping the stream and going on through another process;
        all that comes is noted in the order it came.
        """
        seen: list[int] = []

        def follow(client: Client) -> bool:
            leave_at = len(seen) + self._chosen.choice((1, 3, 10**9, 10**9))
            for event in client.events(job, after=seen[-1] if seen else None):
                seen.append(event.sequence)
                if len(seen) == leave_at or self._stop.is_set():
                    return False
            return True

        ended = False
        while not (ended or self._stop.is_set()):
            ended = bool(self._use("watch", follow))
        self._note("watched", job=job, sequences=seen, ended=ended)

    def _use(self, doing: str, act: Callable[[Client], Answer]) -> Answer | None:
        """Return what `act` makes of the SDK, None where it is refused, which is noted. Tries until it is not for a
        passing reason that it fails. Raises GaveUp.
        """
        deadline, tried = time.monotonic() + _PATIENCE_SECONDS, 0
        while True:
            api, key = self._chosen.choice(self._installation.apis), self._installation.admin_keys[self._team]
            try:
                with Client(api, key, timeout=_ANSWER_SECONDS, retries=0) as client:
                    return act(client)
            except _PASSING as error:
                if isinstance(error, errors.InternalError | errors.IdempotencyConflict):
                    self._refused(doing, f"{type(error).__name__}: {error}")
                if isinstance(error, errors.IdempotencyConflict):
                    return None
                if self._stop.is_set() or time.monotonic() > deadline:
                    raise GaveUp(doing) from error
            except errors.SecateurError as error:
                self._refused(doing, f"{type(error).__name__}: {error}")
                return None
            time.sleep(min(0.2 * 2**tried, 3.0) * self._chosen.uniform(0.5, 1.0))
            tried += 1

    def _note(self, kind: str, **said: Any) -> None:
        """Write down what the client was told."""
        self._installation.journal.note(kind, team=self._team, **said)

    def _refused(self, doing: str, text: str) -> None:
        self._note("refused", doing=doing, text=text[:500])
