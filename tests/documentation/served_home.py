"""A home that `secateur serve` serves as a user starts it, with the sample's files at hand."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bench.parts import free_port

READY_SECONDS = 120


@dataclass(frozen=True)
class ServedHome:
    """Address of the server, and the environment of a shell in its folder, with `secateur` on the path."""

    url: str
    variables: dict[str, str]


@contextmanager
def served_home(folder: Path, samples: Path, command: str = "secateur serve") -> Iterator[ServedHome]:
    """Serve the folder's home at a free port until the block ends."""
    home = folder / ".secateur"
    home.mkdir()
    for each in ("models", "datasets", "downloads"):
        (home / each).symlink_to(samples / each)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
    variables = kept | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])}
    port = free_port()
    with (
        (folder / "serve.log").open("wb") as log,
        subprocess.Popen(
            ["bash", "-c", f"exec {command} --port {port}"], cwd=folder, env=variables, stdout=log, stderr=log
        ) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url)
            yield ServedHome(url, variables)
        finally:
            server.terminate()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"{url} is not ready after {READY_SECONDS} s")
