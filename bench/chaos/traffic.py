"""The clients of a run: several for each team, each with a job or two at a time, who note what they were told."""

import contextlib
import random
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.chaos.bodies import MODEL, TEXT, write_model, write_words
from bench.chaos.bystanders import add_endpoint
from bench.chaos.caller import Caller, GaveUp
from bench.chaos.client import ENDED, ChaosClient
from bench.chaos.installation import Installation
from bench.chaos.journal import Journal
from bench.chaos.receiver import Receiver

__all__ = ["Receiver", "Traffic"]

CLIENTS_OF_TEAM = 3
_END_SECONDS = 90.0


class Traffic:
    """Held as a context: entered, every team has its model, its text and its endpoints, and clients are at work until
    `stop`. The journal has what was answered: `accepted`, `cancel_answered`, `retry_answered`, `uploaded`,
    `downloaded`, `watched`, `endpoint`, and `refused` for what should never have been.
    """

    def __init__(
        self, installation: Installation, journal: Journal, seed: int, clients_of_team: int = CLIENTS_OF_TEAM
    ) -> None:
        self._installation = installation
        self._journal = journal
        self._seed = seed
        self._clients_of_team = clients_of_team
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        folder = self._installation.folder / "clients"
        for number, team in enumerate(self._installation.teams_at_work):
            self._prepare(team, folder / team, self._seed * 100 + number)
        for team in self._installation.teams_at_work:
            for number in range(self._clients_of_team):
                name = f"{team}-{number}"
                client = ChaosClient(self._caller(team, name), self._journal, folder / team / str(number), name)
                self._threads.append(threading.Thread(target=client.run, name=name, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Have every client end what it is at, wait for them, and give up the uploads that they did not finish."""
        if self._stop.is_set():
            return
        self._stop.set()
        for thread in self._threads:
            thread.join(_END_SECONDS)
            if thread.is_alive():
                self._journal.note("stuck", client=thread.name)
        for team in sorted(self._installation.admin_keys):
            caller = self._caller(team, f"{team} tidies")
            with contextlib.suppress(GaveUp):
                for upload in caller.call("GET", "/v1/uploads?status=open&limit=200").json()["data"]:
                    caller.call("DELETE", f"/v1/uploads/{upload['id']}", allowed=frozenset({404, 409}))

    def _caller(self, team: str, name: str) -> Caller:
        return Caller(self._installation, team, self._journal, self._stop, random.Random(f"{self._seed} {name}"))

    def _prepare(self, team: str, folder: Path, seed: int) -> None:
        """A model and a text by real uploads, and two endpoints: one of everything, one of some ends of some jobs."""
        caller = self._caller(team, f"{team} prepares")
        model, text = write_model(folder / MODEL, seed), write_words(folder / f"{TEXT}.txt", seed)
        uploads = [
            caller.use("upload the model", lambda client: client.upload_model(MODEL, model)),
            caller.use("upload the text", lambda client: client.upload_dataset(TEXT, text)),
        ]
        if None in uploads:
            raise GaveUp(f"the model and text of {team} could not be uploaded: see the journal")
        self._journal.note("uploaded", team=team, what="model", name=MODEL)
        self._journal.note("uploaded", team=team, what="dataset", name=TEXT)
        add_endpoint(self._installation, self._journal, team, "all")
        ends = [f"job.{end}" for end in ENDED]
        add_endpoint(self._installation, self._journal, team, "ends", types=ends, metadata={"told": "yes"})
