"""The fetcher as a worker starts it: interrupted, cheated, in pairs; and what it leaves in the cache."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.service.sources.hub_access import HubAccess
from core.service.sources.references import FileReference, HubModel
from core.settings import Settings
from secateur_wire.errors import SecateurError
from tests.sources.hub_server import HubState
from tests.worker.conftest import eventually
from worker.fetcher.protocol import FetchModelSpec, model_key, with_secrets
from worker.node_cache import NodeCache
from worker.processes import ChildProcess, spawn
from worker.runner.messages import LogMessage, Message
from worker.supervisor.fetched_inputs import FETCHER, InputFetcher, fetcher_environment

TEAM = "team_a"
SIZE = 400_000
NAME = "model.safetensors"
WEIGHTS = hashlib.shake_256(b"weights").digest(SIZE)
SMALL = b'{"small": true}'


Fetch = Callable[[Settings, HubModel], dict[str, Any]]


@pytest.fixture
def settings(hub: HubState, tmp_path: Path) -> Settings:
    """Return the settings of a worker, without a database."""
    return Settings(home=tmp_path / "home", hub_endpoint=hub.endpoint, hub_patience_seconds=60.0)


@pytest.fixture
def model(hub: HubState) -> HubModel:
    commit = hub.add("model", "org/model").commit({"config.json": SMALL, NAME: WEIGHTS, "evil.py": b"print()"})
    files = (
        FileReference(
            path="config.json", bytes=len(SMALL), git_blob=hashlib.sha1(b"blob %d\0" % len(SMALL) + SMALL).hexdigest()
        ),
        FileReference(path=NAME, bytes=SIZE, sha256=hashlib.sha256(WEIGHTS).hexdigest()),
    )
    return HubModel(name="org/model", repository="org/model", revision=commit, files=files, is_public=True)


@pytest.fixture
def cache(settings: Settings) -> NodeCache:
    return NodeCache(settings.cache_root, max_bytes=settings.cache_max_bytes)


def spec_of(settings: Settings, model: HubModel) -> FetchModelSpec:
    return FetchModelSpec(
        settings=with_secrets(settings), access=HubAccess(team_id=TEAM), key=model_key(model, TEAM), model=model
    )


@contextmanager
def fetching(
    settings: Settings,
    on_wait: Callable[[], None] = lambda: None,
    on_message: Callable[[Message], None] = lambda message: None,
) -> Iterator[InputFetcher]:
    opened = InputFetcher(settings, settings.home, team_id=TEAM, on_message=on_message, on_wait=on_wait)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def fetch(node: Settings) -> Iterator[Fetch]:
    """Fetches, with one fetcher for all tests."""
    with fetching(node) as opened:
        yield lambda settings, model: opened.fetch(spec_of(settings, model))


def start(settings: Settings, model: HubModel) -> ChildProcess:
    child = spawn(
        FETCHER,
        name="fetcher",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        environment=fetcher_environment(settings, TEAM),
    )
    child.stdin.write(spec_of(settings, model).model_dump_json().encode() + b"\n")
    child.stdin.flush()
    return child


def partial_files(settings: Settings) -> list[Path]:
    return [path for path in (settings.cache_root / "partial").rglob("*") if path.is_file()]


def require_whole(cache: NodeCache, model: HubModel) -> None:
    with cache.find(model_key(model, TEAM)) or pytest.fail("not in the cache") as entry:
        assert {path.name for path in entry.path.iterdir()} == {"config.json", NAME}
        assert (entry.path / NAME).read_bytes() == WEIGHTS


def test_only_what_is_listed_is_fetched_and_a_second_job_fetches_nothing(
    fetch: Fetch, settings: Settings, hub: HubState, model: HubModel, cache: NodeCache
) -> None:
    assert cache.find(model_key(model, TEAM)) is None
    fetch(settings, model)
    require_whole(cache, model)
    assert hub.served == {"config.json": len(SMALL), NAME: SIZE}
    fetch(settings, model)
    assert hub.served[NAME] == SIZE


def test_connections_that_break_are_taken_up_where_they_broke(
    fetch: Fetch, settings: Settings, hub: HubState, model: HubModel, cache: NodeCache
) -> None:
    hub.drops[NAME] = [100_000, 50_000, 0, 1]
    fetch(settings, model)
    require_whole(cache, model)
    assert hub.served[NAME] == SIZE  # not a byte twice
    assert hub.requests.count(f"GET /org/model/resolve/{model.revision}/{NAME}") == 5


def test_a_killed_fetch_is_gone_on_with(
    fetch: Fetch, settings: Settings, hub: HubState, model: HubModel, cache: NodeCache
) -> None:
    def kept_bytes() -> int:
        return sum(path.stat().st_size for path in partial_files(settings) if path.name.startswith(NAME))

    hub.bytes_per_second = 50_000
    child = start(settings, model)
    eventually(lambda: kept_bytes() > 50_000)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    child.end()
    assert cache.find(model_key(model, TEAM)) is None
    assert (kept := kept_bytes()) < SIZE
    hub.bytes_per_second = None
    eventually(lambda: not hub.answering)  # the server has noticed that nobody listens
    before = hub.served[NAME]
    fetch(settings, model)
    require_whole(cache, model)
    assert hub.served[NAME] - before == SIZE - kept
    assert partial_files(settings) == []


def test_bytes_that_are_not_the_announced_ones_never_become_visible(
    fetch: Fetch, settings: Settings, hub: HubState, model: HubModel, cache: NodeCache
) -> None:
    hub.damaged.add(NAME)
    with pytest.raises(SecateurError) as caught:
        fetch(settings, model)
    problem = caught.value.problem()
    assert problem["code"] == "hub_unavailable" and problem["retryable"] and NAME in problem["message"]
    assert cache.find(model_key(model, TEAM)) is None
    hub.damaged.clear()
    fetch(settings, model)
    require_whole(cache, model)


def test_two_jobs_that_want_one_model_fetch_it_once(
    settings: Settings, hub: HubState, model: HubModel, cache: NodeCache
) -> None:
    hub.bytes_per_second = 20_000
    logs: list[str] = []

    def note(message: Message) -> None:
        if isinstance(message, LogMessage) and "another job on this machine" in message.message:
            logs.append(message.message)
            hub.bytes_per_second = None  # now that the other has come

    with (
        fetching(settings, on_message=note) as one,
        fetching(settings, on_message=note) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        running = [pool.submit(each.fetch, spec_of(settings, model)) for each in (one, other)]
        for each in running:
            each.result()
    require_whole(cache, model)
    assert hub.served[NAME] == SIZE
    assert len(logs) == 1


def test_credentials_go_through_the_pipe_and_the_environment_carries_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    monkeypatch.setenv("SECATEUR_SECRET_KEY", "secret")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    environment = fetcher_environment(settings, TEAM)
    assert "HF_TOKEN" not in environment and not any(name.startswith("SECATEUR") for name in environment)
    assert environment["https_proxy"] == "http://proxy:3128"
    assert Settings.model_validate(with_secrets(settings)) == settings
