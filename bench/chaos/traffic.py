"""The clients of a run: several for each team, each with a job or two at a time. They submit, watch, cancel, try again,
upload and download, and note what they were told.
"""

import contextlib
import hashlib
import json
import random
import threading
import time
import uuid
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from httpx_sse import EventSource

from bench.chaos.bodies import MODEL, TEXT, Kind, choose, write_model, write_words
from bench.chaos.caller import Caller, GaveUp
from bench.chaos.installation import Installation, Journal, add_endpoint

ENDED = ("succeeded", "failed", "cancelled")
CLIENTS_OF_TEAM = 3
_STREAM_SECONDS = 25.0
"""A stream that says nothing for this long is broken: the server says something every fifteen."""
_LOOK_SECONDS = 0.7
_AWAY_SECONDS = 240.0
"""Nothing is away for longer."""
_END_SECONDS = 90.0
_CONFLICT = frozenset({409})
_CONFLICT_OR_NONE = frozenset({404, 409})


class Traffic:
    """Held as a context: entered, every team has its model, its text and its endpoints, and clients are at work until
    `stop`. The journal has what was answered: `accepted`, `cancel_answered`, `retry_answered`, `downloaded`, `watched`,
    `endpoint`, and `refused` for what should never have been.
    """

    def __init__(
        self, installation: Installation, journal: Journal, seed: int, clients_of_team: int = CLIENTS_OF_TEAM
    ) -> None:
        self.installation = installation
        self.journal = journal
        self.seed = seed
        self._clients_of_team = clients_of_team
        self.stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for number, team in enumerate(self.installation.teams_at_work):
            ChaosClient(self, team, "prepares").prepare(self.seed * 100 + number)
            add_endpoint(self.installation, self.journal, team, "all")
            ends = [f"job.{end}" for end in ENDED]
            add_endpoint(self.installation, self.journal, team, "ends", types=ends, metadata={"told": "yes"})
        for team in self.installation.teams_at_work:
            clients = [ChaosClient(self, team, str(number)) for number in range(self._clients_of_team)]
            self._threads += [threading.Thread(target=each.run, name=each.name, daemon=True) for each in clients]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Have every client end what it is at, wait for them, and give up the uploads that they did not finish."""
        if self.stopped.is_set():
            return
        self.stopped.set()
        for thread in self._threads:
            thread.join(_END_SECONDS)
            if thread.is_alive():
                self.journal.note("stuck", client=thread.name)
        for team in sorted(self.installation.admin_keys):
            client = ChaosClient(self, team, "tidies")
            with contextlib.suppress(GaveUp):
                for upload in client.call("GET", "/v1/uploads?status=open&limit=200").json()["data"]:
                    client.call("DELETE", f"/v1/uploads/{upload['id']}", allowed=_CONFLICT_OR_NONE)


class ChaosClient(Caller):
    """One client. It goes on until `stop`; what cannot be done for too long is noted and left."""

    def __init__(self, traffic: Traffic, team: str, what: str) -> None:
        self.name = f"{team}-{what}"
        chosen = random.Random(f"{traffic.seed} {self.name}")
        super().__init__(traffic.installation, traffic.journal, team, traffic.stopped, chosen)
        self._folder = traffic.installation.folder / "clients" / self.name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._uploads = 0

    def prepare(self, seed: int) -> None:
        """Upload the team's model and text."""
        model, text = write_model(self._folder / MODEL, seed), write_words(self._folder / f"{TEXT}.txt", seed)
        uploads = [
            self.use("upload the model", lambda client: client.upload_model(MODEL, model)),
            self.use("upload the text", lambda client: client.upload_dataset(TEXT, text)),
        ]
        if None in uploads:
            raise GaveUp(f"the model and text of {self.team} could not be uploaded: see the journal")

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._turn()
            except GaveUp:
                continue
            except Exception as error:  # a client that ends would leave the rest of the run without its part
                self.refused("a client's turn", 0, f"{type(error).__name__}: {error}")
                self.stop.wait(1)

    def _turn(self) -> None:
        if self.chosen.random() < 0.15:
            self._upload()
        job = self._submit(choose(self.chosen))
        if job is None:
            return
        what = self.chosen.random()
        if what < 0.2:
            self.stop.wait(self.chosen.uniform(0, 4))
            self._post(job, "cancel")
        elif what < 0.7:
            self._watch(job)
        ended = self._wait(job)
        if ended is not None and ended["status"] in ("failed", "cancelled") and self.chosen.random() < 0.4:
            self._post(job, "retry")
            ended = self._wait(job)
        if ended is not None and self.chosen.random() < 0.5:
            self._download(ended)

    def _submit(self, kind: Kind) -> str | None:
        """Submit with an idempotency key; now and then the same once more, as after an answer that was lost."""
        key = f"{self.name}-{uuid.UUID(int=self.chosen.getrandbits(128))}"
        metadata = {"submission": key, "kind": kind.name, "told": self.chosen.choice(("yes", "no"))}
        body = {"model": MODEL, "metadata": metadata, **kind.body}
        job = None
        for _ in range(self.chosen.choice((1, 1, 1, 2))):
            answer = self.call("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})
            if answer.is_success:
                job = str(answer.json()["id"])
                self.note("accepted", job=job, key=key, ends=kind.ends)
        return job

    def _post(self, job: str, what: str) -> None:
        """Ask for a job to be cancelled or tried again."""
        answer = self.call("POST", f"/v1/jobs/{job}/{what}", allowed=_CONFLICT)
        if answer.is_success:
            self.note(f"{what}_answered", job=job, status=answer.json()["status"])

    def _wait(self, job: str) -> dict[str, Any] | None:
        """Return the job as it ended; None where the clients stop before."""
        while not self.stop.is_set():
            found: dict[str, Any] = self.call("GET", f"/v1/jobs/{job}").json()
            if found.get("status") in ENDED:
                return found
            self.stop.wait(_LOOK_SECONDS)
        return None

    def _watch(self, job: str) -> None:
        """Follow the events from the first on, now and then dropping the stream and going on through another process;
        all that comes is noted in the order it came.
        """
        seen: list[int] = []
        has_ended = is_over = False
        broken_since: float | None = None
        while not (has_ended or self.stop.is_set()):
            before = len(seen)
            try:
                has_ended = self._follow(job, seen) or (is_over and len(seen) == before)
                broken_since = None
            except httpx.TransportError:
                broken_since = broken_since or time.monotonic()
                if time.monotonic() > broken_since + _AWAY_SECONDS:
                    break
                self.stop.wait(0.5)
            if not has_ended and len(seen) == before:  # it may have left behind the last event: nothing will come
                is_over = self.call("GET", f"/v1/jobs/{job}").json().get("status") in ENDED
        self.note("watched", job=job, sequences=seen, ended=has_ended)

    def _follow(self, job: str, seen: list[int]) -> bool:
        """Read one stream into `seen`; True once it closed behind an event that ends the job. Raises TransportError."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seen[-1])} if seen else {})
        leave_after = self.chosen.choice((1, 3, 10**9, 10**9))
        last: dict[str, Any] = {}
        with (
            self.http(seconds=_STREAM_SECONDS) as client,
            client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise httpx.TransportError(f"{answer.status_code}")
            for message in EventSource(answer).iter_sse():
                if not message.data:
                    continue
                last = json.loads(message.data)
                seen.append(last["sequence"])
                leave_after -= 1
                if leave_after == 0 or self.stop.is_set():
                    return False
        return last.get("type") == "status" and last["data"]["status"] in ENDED

    def _download(self, job: dict[str, Any]) -> None:
        """One file in two requests, or the whole artifact with the SDK."""
        files = self.call("GET", f"/v1/jobs/{job['id']}/artifacts").json()["data"]
        if not files:
            return
        contents: dict[str, bytes | None] = {}
        if self.chosen.random() < 0.3:
            folder = self._folder / "artifact"
            for stale in folder.glob("*"):
                stale.unlink()
            paths = self.use("download an artifact", lambda client: client.download(job["id"], folder))
            contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths or []}
        else:
            file = self.chosen.choice(files)
            contents[file["path"]] = self._in_ranges(f"/v1/jobs/{job['id']}/artifacts/{quote(file['path'])}", file)
        listed = {file["path"]: file["sha256"] for file in files}
        for path, content in contents.items():
            if content is not None:
                hashed = hashlib.sha256(content).hexdigest()
                facts = {"path": path, "sha256": hashed, "listed": listed[path]}
                self.note("downloaded", job=job["id"], attempt=job["attempt"], **facts)

    def _in_ranges(self, path: str, file: dict[str, Any]) -> bytes | None:
        held = b""
        while len(held) < file["bytes"]:
            end = file["bytes"] if held else self.chosen.randint(1, file["bytes"])
            answer = self.call("GET", path, headers={"Range": f"bytes={len(held)}-{end - 1}"})
            if not answer.is_success:
                return None
            held = held + answer.content if answer.status_code == 206 else answer.content
            if not answer.content:
                self.refused(f"GET {path}", answer.status_code, "an answer without a byte of the range")
                return None
        return held

    def _upload(self) -> None:
        """A text, or the beginning of one that is then given up."""
        self._uploads += 1
        name = f"{self.name}-{self._uploads}"
        text = write_words(self._folder / "text.txt", self.chosen.randrange(2**31), passages=20)
        if self.chosen.random() < 0.3:
            self._give_up(name, text.read_bytes())
        else:
            self.use("upload a text", lambda client: client.upload_dataset(name, text))

    def _give_up(self, name: str, content: bytes) -> None:
        file = {"path": "text.txt", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        body = {"kind": "dataset", "name": name, "files": [file]}
        begun = self.call("POST", "/v1/uploads", json=body, headers={"Idempotency-Key": f"upload-{name}"})
        if not begun.is_success:
            return
        upload = f"/v1/uploads/{begun.json()['id']}"
        self.call(
            "PUT",
            f"{upload}/files/text.txt?offset=0",
            content=content[: len(content) // 2],
            headers={"Content-Type": "application/octet-stream"},
            allowed=_CONFLICT,  # its own earlier try, whose answer was lost
        )
        self.call("DELETE", upload, allowed=_CONFLICT_OR_NONE)
