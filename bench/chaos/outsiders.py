"""Team that faults from outside are made of: rows that nobody can read, names on a hub, files, and no key at all."""

import io
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

from bench.chaos.bystanders import AWAITING, DUE, NOBODYS_QUEUE, Team, started
from bench.chaos.hub import POISONED, SEEDS
from bench.chaos.installation import OUTSIDERS, Installation, Journal
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


class Outsiders(Team):
    """A team of its own; what it makes is noted in the journal, for the checker to look at."""

    def __init__(self, installation: Installation, journal: Journal) -> None:
        super().__init__(installation, journal, OUTSIDERS)

    def poison(self, what: str) -> None:
        """Make a row of this kind and spoil it behind the service's back, again where it was too quick for that."""
        make, statement = ROWS[what]
        while not self.installation.change_rows(statement, row := make(self)):
            pass
        self.journal.note("poisoned", team=OUTSIDERS, what=what, id=row)

    def add_hub_triggers(self) -> list[str]:
        """Add triggers on repositories that nobody has asked the hub for; return their ids."""
        return [self.new_trigger() for _ in range(_TRIGGERS)]

    def make_due(self, triggers: list[str]) -> None:
        for trigger in triggers:
            self.installation.change_rows(DUE, trigger)
            self.journal.note("hub_trigger", team=OUTSIDERS, id=trigger)

    def upload(self, what: str) -> None:
        """Send a hostile file and note what was answered."""
        file = FILES[what]
        content = file.content()
        body = {"kind": file.kind, "name": self._name(), "files": [*file.others, _facts(file.path, content)]}
        began, status, code = time.monotonic(), 0, ""
        try:
            upload = f"/v1/uploads/{self.asked('POST', '/v1/uploads', body, seconds=_ANSWER_SECONDS)['id']}"
            binary = {"Content-Type": "application/octet-stream"}
            with self.installation.http(self.name, seconds=_ANSWER_SECONDS) as client:
                answer = client.put(f"{upload}/files/{file.path}?offset=0", content=content, headers=binary)
                if answer.is_success:
                    answer = client.post(f"{upload}/complete")
                client.delete(upload)
            status, code = answer.status_code, answer.json().get("code", "")
        except httpx.HTTPStatusError as error:
            status, code = error.response.status_code, error.response.json().get("code", "")
        except (httpx.TransportError, json.JSONDecodeError) as error:
            code = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        self.journal.note("hostile", what=what, status=status, code=code, seconds=seconds)

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

        with started([threading.Thread(target=send, daemon=True) for _ in range(_CONNECTIONS)], over):
            yield

    @cached_property
    def artifact(self) -> str:
        """Job whose artifact is there to be published."""
        job = self.submit({"model": f"{SEEDS}/artifact", **_RECIPE})
        until(lambda: self.asked("GET", f"/v1/jobs/{job}")["status"] == "succeeded", _PREPARE_SECONDS)
        return job

    def new_trigger(self) -> str:
        name = self._name()
        return self.add_trigger({"model": f"{SEEDS}/{name}", **_RECIPE}, name)

    def new_sweep(self) -> str:
        return self.sweep(f"{SEEDS}/{self._name()}")

    def new_publication(self) -> str:
        return self.publish(self.artifact, f"poisoned/{self._name()}")

    def new_job(self) -> str:
        return self.submit({"model": f"{SEEDS}/{self._name()}", "queue": NOBODYS_QUEUE, **_RECIPE})

    def _name(self) -> str:
        return f"outside-{next(self.numbers)}"


ROWS: Final[dict[str, tuple[Callable[[Outsiders], str], str]]] = {
    "trigger": (
        Outsiders.new_trigger,
        f"UPDATE triggers SET template = template || '{_POISON}', next_fire_at = clock_timestamp() WHERE id = %s",
    ),
    "sweep": (
        Outsiders.new_sweep,
        f"UPDATE sweeps SET pinned = '{POISONED}/card' WHERE id = %s"
        " AND NOT EXISTS (SELECT FROM sweep_points WHERE sweep_id = sweeps.id AND job_id IS NOT NULL)",
    ),
    "publication": (
        Outsiders.new_publication,
        """UPDATE publications SET destination = '{"kind": "of a later release"}' WHERE id = %s AND attempt = 0""",
    ),
    "job": (Outsiders.new_job, AWAITING.replace("'{}'", f"'{_POISON}'")),
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
