"""A scripted server, a client of it, and an environment that knows nothing of the machine's own configuration."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur import Client
from secateur.transport import retries
from tests.client.command_line import RunHere, run_here
from tests.client.script import KEY, Script
from tests.client.scripted_server import serving


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SECATEUR_HOME, and no other configuration."""
    for name in ("SECATEUR_URL", "SECATEUR_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "secateur-home"
    folder.mkdir()
    monkeypatch.setenv("SECATEUR_HOME", str(folder))
    return folder


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made again at once: how long the pauses are is tested by itself."""
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.01)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, KEY) as opened:
        yield opened


@pytest.fixture
def scripted(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """The command line, run in this process against the scripted server. `here` runs it against the real service."""
    return run_here(url, KEY, monkeypatch, capsys)
