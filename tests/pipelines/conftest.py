"""One service for all tests of the package."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.command_line import RunHere, run_here
from tests.databases import fresh_database
from tests.pipelines.service import Service, serving


@pytest.fixture(scope="package")
def running(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with fresh_database(postgres_url) as url, serving(url, tmp_path_factory.mktemp("pipelines")) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    """The one of the package, whose runner does as usual."""
    running.behave()
    return running


@pytest.fixture
def secateur(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunHere:
    """The command line, run in this process and in the folder of the pipeline's run."""
    service.use_here(monkeypatch, tmp_path)
    return run_here(service.url, service.key, monkeypatch, capsys)
