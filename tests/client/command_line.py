"""Running the real `secateur` command, as a process or, where that adds nothing, in this one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.client.scripted_server import KEY

COMMAND = Path(sys.executable).with_name("secateur")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


RunHere = Callable[..., Ended]
"""Runs `secateur` with these arguments in this process."""


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "SECATEUR_URL": url, "SECATEUR_API_KEY": KEY}


def secateur(url: str, *arguments: str, key: str = KEY, **variables: str) -> Ended:
    done = subprocess.run(
        [COMMAND, *arguments],
        env={**environment(url), "SECATEUR_API_KEY": key, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
