"""What tests of the service share: a PostgreSQL server of their own, a fresh migrated database for each test, the API
as its users meet it, keys for every role and another team, a model and a text.
"""

import fcntl
import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import execnet
import httpx
import hypothesis
import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import Pool
from starlette.types import ASGIApp
from xdist.remote import Producer

from core.database import session_factory, transaction
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.service import read_dataset, read_model, register_dataset, register_model
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.settings import Settings
from core.storage import Store, open_store
from secateur_wire.teams import Role
from tests.client.command_line import RunHere, run_here
from tests.databases import administrator, fresh_database, template
from tests.distribution import TOGETHER, ByWhatIsShared
from tests.files_in_memory import keep_files_in_memory
from tests.forked_processes import forking
from tests.model_folders import write_llama, write_text
from tests.one_dialect import share_dialect
from tests.one_trust import share_trust
from tests.serving import lent_app, served
from tests.started_alike import draw_alike, start_alike
from worker.embedded.instance import open_instance
from worker.embedded.postgres import postgres
from worker.samples.language import add_samples

pytest_plugins = ["tests.budget"]

start_alike()
keep_files_in_memory()
share_dialect()
share_trust()
for _kind in ("connect", "read", "write", "pool"):  # of a client that names no limit: only what hangs takes so long
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _kind, 120.0)
hypothesis.settings.register_profile(
    "suite",
    derandomize=True,  # the same examples each time
    deadline=None,  # a machine that has much to do makes no property false
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")
gc.disable()  # until all tests are found: what is imported stays

CORES = max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
"""Of each process of the run, and of what it starts: threads that wait for each other on cores others use take several
times as long as one alone."""
LOOKS_FOR_GARBAGE = 20_000, 20, 20
"""New objects before a look for garbage, and looks before a longer one: Python's own, of 700, take a twentieth of the
time of tests of the service."""
SAMPLES = Path(__file__).parents[1] / ".cache" / "samples"
"""A home with the sample model and texts, that later runs reuse."""
_CHOSEN_THREADS = os.environ.get("OMP_NUM_THREADS")
os.environ.setdefault("OMP_NUM_THREADS", str(CORES))

LONG = (
    "tests/trained/test_smollm2",
    "tests/api/test_schemathesis",
    *TOGETHER["runners"],
    *TOGETHER["apart"],
    "tests/worker/test_serve",
    *("tests/trained/", "tests/worker/", "tests/production/", "tests/sources/"),
    "tests/publications/test_killed",
    "tests/pipelines/",
    *("tests/methods/test_adapter_model", "tests/simulator/", "tests/gguf/", "tests/fuzz/", "tests/stores/"),
    *("tests/webhooks/test_processes", "tests/plans/", "tests/client/test_prune"),
)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Have one process of the run look for tests before the others: what it compiles and rewrites, in a tree that has
    not been tested yet most of the work, they find done.
    """
    if not hasattr(session.config, "workerinput"):
        return (yield)
    SAMPLES.parent.mkdir(exist_ok=True)
    with SAMPLES.with_name("collection.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: at the end no process of the run waits for another's. The one of them that fetches the sample
    model comes before the others that need it.
    """

    def place(item: pytest.Item) -> int:
        return next((place for place, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG))

    items.sort(key=place)


def pytest_xdist_setupnodes(config: pytest.Config, specs: list[execnet.XSpec]) -> None:
    """Fork the processes of the run from one, where they would be started on this machine."""
    if _CHOSEN_THREADS is None:  # they inherit what was set above, for this process alone
        os.environ["OMP_NUM_THREADS"] = str(max(1, CORES // len(specs)))
    forks = ExitStack()
    config.add_cleanup(forks.close)
    python = forks.enter_context(forking())
    for spec in specs:
        if spec.popen:
            spec.python = python


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByWhatIsShared | None:
    """Take the place of `--dist loadfile`, and of no other."""
    return ByWhatIsShared(config, log) if config.getvalue("dist") == "loadfile" else None


@event.listens_for(Pool, "connect")
def _prepare_at_once(connection: psycopg.Connection[Any], _: object) -> None:
    """Prepare each statement at its second execution, not at its sixth as a process that lives long does.

    The first one shows the driver which are several statements at once, which cannot be prepared.
    """
    connection.prepare_threshold = 1


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    draw_alike()


def pytest_collection_finish() -> None:
    """Leave all that was imported out of every look for garbage: it would be most of each."""
    gc.freeze()
    gc.set_threshold(*LOOKS_FOR_GARBAGE)
    gc.enable()


_SECRET = "a secret for tests"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server for the whole run, ended with it. Nothing in it has to survive a crash, so it need not wait for disks.

    It plans each statement without its values, as PostgreSQL may from a statement's sixth execution on: a statement
    that works only with them then fails in the first test that runs it.

    Not in pytest's own temporary folder: as root the server runs as another user, whom a second pytest that starts
    meanwhile would lock out of there.
    """
    with TemporaryDirectory(prefix="secateur-test-") as folder, postgres(Path(folder) / "cluster") as url:
        with administrator(url) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("ALTER SYSTEM SET plan_cache_mode = force_generic_plan")
            connection.execute("SELECT pg_reload_conf()")
        with template(url):
            yield url


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A migrated, empty database of this test's own."""
    with fresh_database(postgres_url) as url:
        yield url


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return settings_for(database_url, tmp_path / "home")


def settings_for(database_url: str, home: Path) -> Settings:
    of_environment = frozenset(item for item in os.environ.items() if item[0].startswith("SECATEUR_"))
    return _settings(of_environment).model_copy(update={"home": home, "database_url": database_url})


@cache
def _settings(of_environment: frozenset[tuple[str, str]]) -> Settings:
    """Read the settings once: most tests take longer to do that than to do what they are for."""
    return Settings(
        secret_key=_SECRET, hub_endpoint="http://127.0.0.1:9", hub_search_seconds=60
    )  # no test asks the real one


@pytest.fixture
def sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    factory = session_factory(settings)
    yield factory
    factory.kw["bind"].dispose()


@pytest.fixture
def store(settings: Settings) -> Store:
    return open_store(settings)


@pytest.fixture
def team(sessions: sessionmaker[Session]) -> str:
    """Id of the team most tests act for."""
    with transaction(sessions) as session:
        return create_team(session, "gardeners")


@pytest.fixture
def other_team(sessions: sessionmaker[Session]) -> str:
    with transaction(sessions) as session:
        return create_team(session, "foresters")


def _key(sessions: sessionmaker[Session], team_id: str, role: Role) -> str:
    with transaction(sessions) as session:
        return create_key(session, team_id, role=role, name=role, expires_at=None, secret=_SECRET.encode()).key


@pytest.fixture
def admin_key(sessions: sessionmaker[Session], team: str) -> str:
    return _key(sessions, team, "admin")


@pytest.fixture
def member_key(sessions: sessionmaker[Session], team: str) -> str:
    return _key(sessions, team, "member")


@pytest.fixture
def viewer_key(sessions: sessionmaker[Session], team: str) -> str:
    return _key(sessions, team, "viewer")


@pytest.fixture
def other_team_key(sessions: sessionmaker[Session], other_team: str) -> str:
    """An admin of another team."""
    return _key(sessions, other_team, "admin")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def api_client(settings: Settings) -> Iterator[TestClient]:
    """The application, without a key."""
    with lent_app(settings) as app, TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def api(api_client: TestClient, admin_key: str) -> TestClient:
    """The application, as an admin of the team."""
    api_client.headers.update(bearer(admin_key))
    return api_client


@pytest.fixture
def served_app(settings: Settings) -> Iterator[ASGIApp]:
    """The application that a server serves."""
    with lent_app(settings) as lent:
        yield lent


@pytest.fixture
def live_api(served_app: ASGIApp, admin_key: str) -> Iterator[httpx.Client]:
    """The application behind a real server on loopback, as an admin: for streams and for requests at the same time."""
    with served(served_app) as url, httpx.Client(base_url=url, headers=bearer(admin_key), timeout=120) as client:
        yield client


@pytest.fixture
def here(
    live_api: httpx.Client, admin_key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunHere:
    """The command line, run in this process against the real service, as an admin."""
    return run_here(str(live_api.base_url), admin_key, monkeypatch, capsys)


@pytest.fixture
def model(sessions: sessionmaker[Session], settings: Settings, team: str) -> str:
    """Name of a registered model: a Llama of two layers, contexts of 64 tokens."""
    return add_model(sessions, settings, team)


@pytest.fixture
def dataset(sessions: sessionmaker[Session], settings: Settings, team: str) -> str:
    """Name of a registered text of 10 000 bytes."""
    return add_dataset(sessions, settings, team)


@pytest.fixture
def job_body(model: str, dataset: str) -> dict[str, Any]:
    """A job that can be run."""
    return job_on(model, dataset)


@pytest.fixture(scope="module")
def lasting_api(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application, as an admin of a team that has the model and the text, for all tests of a module: those of
    requests that leave nothing behind.
    """
    with fresh_database(postgres_url) as url:
        settings = settings_for(url, tmp_path_factory.mktemp("lasting") / "home")
        sessions = session_factory(settings)
        with transaction(sessions) as session:
            team = create_team(session, "gardeners")
        add_model(sessions, settings, team)
        add_dataset(sessions, settings, team)
        with lent_app(settings) as app, TestClient(app, raise_server_exceptions=False) as client:
            client.headers.update(bearer(_key(sessions, team, "admin")))
            yield client
        sessions.kw["bind"].dispose()


def add_model(sessions: sessionmaker[Session], settings: Settings, team: str) -> str:
    folder = write_llama(settings.models_root / "tiny")
    with transaction(sessions) as session:
        body = ModelBody(name="tiny", path=str(folder.resolve()))
        return register_model(session, team, read_model(body, settings))[0].name


def add_dataset(sessions: sessionmaker[Session], settings: Settings, team: str) -> str:
    file = write_text(settings.datasets_root / "numbers.txt")
    with transaction(sessions) as session:
        body = DatasetBody(name="numbers", path=str(file.resolve()))
        return register_dataset(session, team, read_dataset(body, settings))[0].name


def job_on(model: str, dataset: str) -> dict[str, Any]:
    """Return a job that can be run."""
    return {
        "model": model,
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"dataset": dataset, "samples": 8, "sequence_length": 32},
        "evaluation": {"datasets": [dataset], "samples": 4},
        "metadata": {"commit": "abc"},
    }


@contextmanager
def samples_alone() -> Iterator[None]:
    """Only one process of the run fills the home; the others find it filled."""
    SAMPLES.parent.mkdir(exist_ok=True)
    with SAMPLES.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def samples() -> Path:
    """The home, filled: fetched once, by pinned hash."""
    with samples_alone(), open_instance(Settings(home=SAMPLES)) as home:
        add_samples(home, lambda text: None)
    return SAMPLES
