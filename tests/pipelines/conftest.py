"""One service for all tests of the package."""

from collections.abc import Iterator

import pytest

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
