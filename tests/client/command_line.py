"""Running the real `secateur` command, as a process or, where that adds nothing, in this one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from secateur.cli import main
from tests.client.script import KEY

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


def run_here(url: str, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """For a server and a key."""
    monkeypatch.setenv("SECATEUR_URL", url)
    monkeypatch.setenv("SECATEUR_API_KEY", key)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["secateur", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err)

    return run


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
