"""Faults from outside: rows of a team that nobody can carry out, its files that are slow to check, and clients without
a key.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any, Final

import httpx

from bench.chaos.clients import HALF, MODEL
from bench.chaos.installation import NOBODYS_QUEUE, OUTSIDERS, Installation

POISONS: Final = {
    "triggers": """UPDATE triggers SET template = template || '{"sparsity": 7}', next_fire_at = clock_timestamp()
        WHERE id = %s""",
    "jobs": """UPDATE jobs SET awaits_discovery = 'discovery_none', available_at = '9000-01-01', dispatched_at = NULL,
        body = body || '{"sparsity": 7}' WHERE id = %s""",
}
"""Spoils a row of this kind. The discovery of the job's model is over: the dispatcher resolves it."""
_NEST: Final = b"[" * 30 + b"]" * 30
_NESTED: Final = b'{"parameters":[' + b",".join([_NEST] * 17_000) + b"]}"
"""Body of the greatest length and depth that a request may have."""
_SLOW: Final = ("{" + ",".join(f'"{number}":0' for number in range(40_000)) + ',"39999":0}').encode()
"""A config in which the last of many names is given twice."""
_ANSWER_SECONDS = 60.0
_numbers = itertools.count(1)


def poison(installation: Installation, what: str) -> None:
    """Make a row of this kind and spoil it behind the service's back. Raises httpx.HTTPError."""
    job = {"model": MODEL, "queue": NOBODYS_QUEUE, **HALF}
    trigger = {"name": f"yearly-{next(_numbers)}", "template": job, "schedule": {"cron": "0 0 1 1 *"}}
    body = {"jobs": job, "triggers": trigger}[what]
    row = installation.request(OUTSIDERS, "POST", f"/v1/{what}", body)["id"]
    with installation.connect() as connection:
        connection.execute(POISONS[what].encode(), [row])
    installation.journal.note("poisoned", what=what, id=row)


@contextmanager
def at_once(count: int, act: Callable[[], object]) -> Iterator[None]:
    """Have so many threads act again and again inside the context; at its end they are waited for."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.1):
            act()

    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def send_nested_lists(api: str) -> None:
    """Send the longest and deepest body, without a key, whatever is answered."""
    with suppress(httpx.TransportError):
        httpx.post(f"{api}/v1/jobs", content=_NESTED, headers={"Content-Type": "application/json"}, timeout=60)


def upload(installation: Installation) -> None:
    """Send a file that is slow to check and note what was answered."""
    files = [_facts("config.json", _SLOW), _facts("model.safetensors", b"not sent")]
    body = {"kind": "model", "name": f"hostile-{next(_numbers)}", "files": files}
    began, status, code = time.monotonic(), 0, ""
    try:
        with installation.http(OUTSIDERS, seconds=_ANSWER_SECONDS) as client:
            path = f"/v1/uploads/{client.post('/v1/uploads', json=body).raise_for_status().json()['id']}"
            binary = {"Content-Type": "application/octet-stream"}
            answer = client.put(f"{path}/files/config.json?offset=0", content=_SLOW, headers=binary)
            client.delete(path)
        status, code = answer.status_code, answer.json()["code"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        code = f"{type(error).__name__}: {error}"
    installation.journal.note("hostile", status=status, code=code, seconds=time.monotonic() - began)


def _facts(path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "bytes": len(content), "sha256": sha256(content).hexdigest()}
