"""Team that faults from outside are made of: rows that nobody can read, names on a hub, files, and no key at all."""

import io
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import httpx
import pyarrow
import pyarrow.parquet

from bench.chaos.bystanders import AWAITING, DUE, NOBODYS_QUEUE, add_trigger, publish, request, started
from bench.chaos.hub import POISONED, SEEDS
from bench.chaos.installation import OUTSIDERS, Installation, change_rows
from bench.chaos.journal import Journal
from bench.parts import until

_RECIPE: Final = {"method": "magnitude", "sparsity": 0.5}
_POISON: Final = json.dumps({"model": f"{POISONED}/card"})
_TRIGGERS = 4
"""Triggers that name the hub: enough that asking one after the other takes longer than a bystander's trigger may."""
_CONNECTIONS = 20
_NEST: Final = b"[" * 30 + b"]" * 30
_NESTED: Final = b'{"parameters":[' + b",".join([_NEST] * 17_000) + b"]}"
"""Body of the greatest length and depth that a request may have."""
_PREPARE_SECONDS = 90.0
_ANSWER_SECONDS = 60.0


class Outsiders:
    """A team of its own; what it makes is noted in the journal, for the checker to look at."""

    def __init__(self, installation: Installation, journal: Journal) -> None:
        self._installation = installation
        self._journal = journal
        self._numbers = itertools.count(1)

    def poison(self, what: str) -> None:
        """Make a row of this kind and spoil it behind the service's back, again where it was too quick for that."""
        row, statement = ROWS[what]
        while not change_rows(self._installation, statement, made := row(self)):
            pass
        self._journal.note("poisoned", team=OUTSIDERS, what=what, id=made)

    def add_hub_triggers(self) -> list[str]:
        """Add triggers on repositories that nobody has asked the hub for; return their ids."""
        return [self._trigger() for _ in range(_TRIGGERS)]

    def make_due(self, triggers: list[str]) -> None:
        for trigger in triggers:
            change_rows(self._installation, DUE, trigger)
            self._journal.note("hub_trigger", team=OUTSIDERS, id=trigger)

    def upload(self, what: str) -> None:
        """Send a hostile file and note what was answered."""
        file = FILES[what]
        body = {"kind": file.kind, "name": self._name(), "files": [*file.others, _facts(file.path, file.content())]}
        content = file.content()
        began, status, code = time.monotonic(), 0, ""
        try:
            upload = self._asked("POST", "/v1/uploads", body)["id"]
            answer = self._http().put(
                f"/v1/uploads/{upload}/files/{file.path}?offset=0",
                content=content,
                headers={"Content-Type": "application/octet-stream"},
            )
            if answer.is_success:
                answer = self._http().post(f"/v1/uploads/{upload}/complete")
            status, code = answer.status_code, answer.json().get("code", "")
            self._http().delete(f"/v1/uploads/{upload}")
        except httpx.HTTPStatusError as error:
            status, code = error.response.status_code, error.response.json().get("code", "")
        except (httpx.TransportError, json.JSONDecodeError) as error:
            code = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        self._journal.note("hostile", what=what, status=status, code=code, seconds=seconds)

    @contextmanager
    def sending_nested_lists(self, api: str) -> Iterator[None]:
        """Have many connections without a key send bodies that are slow to check, one after the other."""
        over = threading.Event()

        def send() -> None:
            while not over.is_set():
                try:
                    with httpx.Client(base_url=api, timeout=_ANSWER_SECONDS, trust_env=False) as client:
                        client.post("/v1/jobs", content=_NESTED, headers={"Content-Type": "application/json"})
                except httpx.TransportError:
                    over.wait(0.1)

        threads = [threading.Thread(target=send, daemon=True) for _ in range(_CONNECTIONS)]
        with started(threads, over):
            yield

    @cached_property
    def _artifact(self) -> str:
        job = self._asked("POST", "/v1/jobs", {"model": f"{SEEDS}/artifact", **_RECIPE})["id"]
        until(lambda: self._asked("GET", f"/v1/jobs/{job}")["status"] == "succeeded", _PREPARE_SECONDS)
        return str(job)

    def _trigger(self) -> str:
        name = self._name()
        return add_trigger(self._installation, OUTSIDERS, {"model": f"{SEEDS}/{name}", **_RECIPE}, name)

    def _sweep(self) -> str:
        job = {"model": f"{SEEDS}/{self._name()}", "queue": NOBODYS_QUEUE}
        body = {"job": job, "grid": {"method": ["magnitude"], "sparsity": [0.5]}}
        return str(self._asked("POST", "/v1/sweeps", body)["id"])

    def _publication(self) -> str:
        return publish(self._installation, OUTSIDERS, self._artifact, f"poisoned/{self._name()}")

    def _job(self) -> str:
        body = {"model": f"{SEEDS}/{self._name()}", "queue": NOBODYS_QUEUE, **_RECIPE}
        return str(self._asked("POST", "/v1/jobs", body)["id"])

    def _name(self) -> str:
        return f"outside-{next(self._numbers)}"

    def _asked(self, method: str, path: str, body: Any = None) -> Any:
        return request(self._installation, OUTSIDERS, method, path, body, seconds=_ANSWER_SECONDS)

    def _http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self._installation.admin_keys[OUTSIDERS]}"}
        api = self._installation.apis[-1]
        return httpx.Client(base_url=api, headers=headers, timeout=_ANSWER_SECONDS, trust_env=False)


ROWS: Final[dict[str, tuple[Callable[[Outsiders], str], str]]] = {
    "trigger": (
        Outsiders._trigger,
        f"UPDATE triggers SET template = template || '{_POISON}', next_fire_at = clock_timestamp() WHERE id = %s",
    ),
    "sweep": (
        Outsiders._sweep,
        f"UPDATE sweep_points SET body = body || '{_POISON}' WHERE sweep_id = %s AND job_id IS NULL",
    ),
    "publication": (
        Outsiders._publication,
        """UPDATE publications SET destination = '{"kind": "of a later release"}' WHERE id = %s AND attempt = 0""",
    ),
    "job": (Outsiders._job, AWAITING.replace("'{}'", f"'{_POISON}'")),
}
"""Each kind of row: how it is made, and how it is spoiled."""


@dataclass(frozen=True)
class HostileFile:
    """A file of an upload, and what is announced beside it."""

    kind: str
    path: str
    content: Callable[[], bytes]
    others: tuple[dict[str, Any], ...] = ()


def _facts(path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "bytes": len(content), "sha256": sha256(content).hexdigest()}


def _duplicate_names() -> bytes:
    return ("{" + ",".join(f'"{number}":0' for number in range(40_000)) + ',"39999":0}').encode()


def _deep_nest() -> bytes:
    return b'{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}"


def _header() -> bytes:
    names = _duplicate_names()
    return len(names).to_bytes(8, "little") + names


def _parquet_bomb() -> bytes:
    """A few hundred bytes that hold some ten million empty texts."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.nulls(10_000_000, pyarrow.string())}), file)
    return file.getvalue()


_WEIGHTS = _facts("model.safetensors", b"not sent")
_CONFIG = _facts("config.json", b"not sent")
FILES: Final[dict[str, HostileFile]] = {
    "config with a name given twice": HostileFile("model", "config.json", _duplicate_names, (_WEIGHTS,)),
    "config of lists in lists": HostileFile("model", "config.json", _deep_nest, (_WEIGHTS,)),
    "header with a name given twice": HostileFile("model", "model.safetensors", _header, (_CONFIG,)),
    "Parquet of ten million rows": HostileFile("dataset", "text.parquet", _parquet_bomb),
}
