"""One client at work: it submits, watches, cancels, tries again, uploads and downloads, and notes what it was told."""

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import EventSource

from bench.chaos.bodies import MODEL, Kind, choose, write_words
from bench.chaos.caller import Caller, GaveUp
from bench.chaos.journal import Journal

ENDED = ("succeeded", "failed", "cancelled")
_STREAM_SECONDS = 25.0
"""A stream that says nothing for this long is broken: the server says something every fifteen."""
_LOOK_SECONDS = 0.7
_AWAY_SECONDS = 240.0
"""Nothing is away for longer."""
_CONFLICT = frozenset({409})
_CONFLICT_OR_NONE = frozenset({404, 409})


class ChaosClient:
    """Goes on until the caller's `stop`; what cannot be done for too long is noted and left."""

    def __init__(self, caller: Caller, journal: Journal, folder: Path, name: str) -> None:
        self._caller = caller
        self._journal = journal
        self._folder = folder
        self._name = name
        self._chosen = caller.chosen
        self._uploads = 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        while not self._caller.stop.is_set():
            try:
                self._turn()
            except GaveUp:
                continue
            except Exception as error:  # a client that ends would leave the rest of the run without its part
                self._caller.refused("a client's turn", 0, f"{type(error).__name__}: {error}")
                self._caller.stop.wait(1)

    def _turn(self) -> None:
        if self._chosen.random() < 0.15:
            self._upload()
        kind = choose(self._chosen)
        job = self._submit(kind)
        if job is None:
            return
        what = self._chosen.random()
        if what < 0.2:
            self._caller.stop.wait(self._chosen.uniform(0, 4))
            self._cancel(job)
        elif what < 0.7:
            self._watch(job)
        ended = self._wait(job)
        if ended is not None and ended["status"] in ("failed", "cancelled") and self._chosen.random() < 0.4:
            self._retry(job)
            ended = self._wait(job)
        if ended is not None and self._chosen.random() < 0.5:
            self._download(ended)

    def _submit(self, kind: Kind) -> str | None:
        """Submit with an idempotency key; now and then the same once more, as after an answer that was lost."""
        key = f"{self._name}-{uuid.UUID(int=self._chosen.getrandbits(128))}"
        metadata = {"submission": key, "kind": kind.name, "told": self._chosen.choice(("yes", "no"))}
        body = {"model": MODEL, "metadata": metadata, **kind.body}
        job = None
        for _ in range(self._chosen.choice((1, 1, 1, 2))):
            answer = self._caller.call("POST", "/v1/jobs", body=body, headers={"Idempotency-Key": key})
            if answer.is_success:
                job = str(answer.json()["id"])
                self._journal.note("accepted", job=job, team=self._caller.team, key=key, ends=kind.ends)
        return job

    def _cancel(self, job: str) -> None:
        answer = self._caller.call("POST", f"/v1/jobs/{job}/cancel", allowed=_CONFLICT)
        if answer.is_success:
            self._journal.note("cancel_answered", job=job, team=self._caller.team, status=answer.json()["status"])

    def _retry(self, job: str) -> None:
        answer = self._caller.call("POST", f"/v1/jobs/{job}/retry", allowed=_CONFLICT)
        if answer.is_success:
            self._journal.note("retry_answered", job=job, team=self._caller.team, status=answer.json()["status"])

    def _wait(self, job: str) -> dict[str, Any] | None:
        """Return the job as it ended; None where the clients stop before."""
        while not self._caller.stop.is_set():
            found: dict[str, Any] = self._caller.call("GET", f"/v1/jobs/{job}").json()
            if found.get("status") in ENDED:
                return found
            self._caller.stop.wait(_LOOK_SECONDS)
        return None

    def _watch(self, job: str) -> None:
        """Follow the events from the first on, now and then dropping the stream and going on through another process;
        all that comes is noted in the order it came.
        """
        seen: list[int] = []
        has_ended = is_over = False
        broken_since: float | None = None
        while not (has_ended or self._caller.stop.is_set()):
            before = len(seen)
            try:
                has_ended = self._follow(job, seen) or (is_over and len(seen) == before)
                broken_since = None
            except httpx.TransportError:
                broken_since = broken_since or time.monotonic()
                if time.monotonic() > broken_since + _AWAY_SECONDS:
                    break
                self._caller.stop.wait(0.5)
            if not has_ended and len(seen) == before:  # it may have left behind the last event: nothing will come
                is_over = self._caller.call("GET", f"/v1/jobs/{job}").json().get("status") in ENDED
        self._journal.note("watched", job=job, team=self._caller.team, sequences=seen, ended=has_ended)

    def _follow(self, job: str, seen: list[int]) -> bool:
        """Read one stream into `seen`; True once it closed behind an event that ends the job. Raises TransportError."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seen[-1])} if seen else {})
        leave_after = self._chosen.choice((1, 3, 10**9, 10**9))
        last: dict[str, Any] = {}
        with (
            self._caller.http(seconds=_STREAM_SECONDS) as client,
            client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise httpx.TransportError(f"{answer.status_code}")
            for last in _events(answer):
                seen.append(last["sequence"])
                leave_after -= 1
                if leave_after == 0 or self._caller.stop.is_set():
                    return False
        return last.get("type") == "status" and last["data"]["status"] in ENDED

    def _download(self, job: dict[str, Any]) -> None:
        """One file in two requests, or the whole artifact with the SDK."""
        files = self._caller.call("GET", f"/v1/jobs/{job['id']}/artifacts").json()["data"]
        if not files:
            return
        if self._chosen.random() < 0.3:
            folder = self._folder / "artifact"
            for stale in folder.glob("*"):
                stale.unlink()
            paths = self._caller.use("download an artifact", lambda client: client.download(job["id"], folder))
            listed = {file["path"]: file["sha256"] for file in files}
            for path in paths or []:
                name = path.relative_to(folder).as_posix()
                self._downloaded(job, name, path.read_bytes(), listed[name])
            return
        file = self._chosen.choice(files)
        content = self._in_ranges(f"/v1/jobs/{job['id']}/artifacts/{quote(file['path'])}", file)
        if content is not None:
            self._downloaded(job, file["path"], content, file["sha256"])

    def _in_ranges(self, path: str, file: dict[str, Any]) -> bytes | None:
        held = b""
        while len(held) < file["bytes"]:
            end = file["bytes"] if held else self._chosen.randint(1, file["bytes"])
            answer = self._caller.call("GET", path, headers={"Range": f"bytes={len(held)}-{end - 1}"})
            if not answer.is_success:
                return None
            held = held + answer.content if answer.status_code == 206 else answer.content
            if not answer.content:
                self._caller.refused(f"GET {path}", answer.status_code, "an answer without a byte of the range")
                return None
        return held

    def _downloaded(self, job: dict[str, Any], path: str, content: bytes, listed: str) -> None:
        self._journal.note(
            "downloaded",
            job=job["id"],
            team=self._caller.team,
            attempt=job["attempt"],
            path=path,
            sha256=hashlib.sha256(content).hexdigest(),
            listed=listed,
        )

    def _upload(self) -> None:
        """A text, or the beginning of one that is then given up."""
        self._uploads += 1
        name = f"{self._name}-{self._uploads}"
        text = write_words(self._folder / "text.txt", self._chosen.randrange(2**31), passages=20)
        if self._chosen.random() < 0.3:
            self._give_up(name, text.read_bytes())
            return
        made = self._caller.use("upload a text", lambda client: client.upload_dataset(name, text))
        if made is not None:
            self._journal.note("uploaded", team=self._caller.team, what="dataset", name=name)

    def _give_up(self, name: str, content: bytes) -> None:
        file = {"path": "text.txt", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        begun = self._caller.call(
            "POST",
            "/v1/uploads",
            body={"kind": "dataset", "name": name, "files": [file]},
            headers={"Idempotency-Key": f"upload-{name}"},
        )
        if not begun.is_success:
            return
        upload = f"/v1/uploads/{begun.json()['id']}"
        half = len(content) // 2
        self._caller.call(
            "PUT",
            f"{upload}/files/text.txt?offset=0",
            content=content[:half],
            headers={"Content-Type": "application/octet-stream"},
            allowed=_CONFLICT,  # its own earlier try, whose answer was lost
        )
        self._caller.call("DELETE", upload, allowed=_CONFLICT_OR_NONE)


def _events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for message in EventSource(answer).iter_sse():
        if message.data:
            yield json.loads(message.data)
