"""How many requests a key may make, and an address without one."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from api.process.rate_limits import Rates
from core.logs import configure_logs
from core.service.jobs.broker import broker_answers, celery_app
from core.service.jobs.hints import Hints
from core.service.teams.tokens import new_token
from core.settings import Settings
from secateur_wire.errors import RateLimited
from tests.conftest import bearer
from tests.worker.redis_server import RedisServer, redis_running

BURST = 5


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as server:
        yield server


@pytest.fixture
def limited(settings: Settings) -> Iterator[TestClient]:
    few = settings.model_copy(update={"requests_per_minute": BURST, "requests_burst": 100})
    with TestClient(create_app(few), raise_server_exceptions=False) as client:
        yield client


def allowed(rates: Rates, token: str, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            rates.count_request(token)
        except RateLimited:
            break
        count += 1
    return count


def test_a_key_over_its_rate_is_429(limited: TestClient, admin_key: str, viewer_key: str) -> None:
    answers = [limited.get("/v1/methods", headers=bearer(admin_key)) for _ in range(3 * BURST)]
    refused = next(answer for answer in answers if answer.status_code != 200)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["Retry-After"]) >= 1
    assert limited.get("/v1/methods", headers=bearer(viewer_key)).status_code == 200


@pytest.mark.parametrize("kind", ["none", "malformed", "unknown"])
def test_an_address_without_a_valid_key_is_limited_and_a_valid_key_from_there_is_not(
    limited: TestClient, viewer_key: str, kind: str
) -> None:
    def headers() -> dict[str, str]:
        return {"none": {}, "malformed": bearer("sct_x"), "unknown": bearer(new_token())}[kind]

    statuses = {limited.get("/v1/methods", headers=headers()).status_code for _ in range(3 * BURST)}
    assert statuses == {401, 429}
    assert limited.get("/v1/methods", headers=bearer(viewer_key)).status_code == 200
    assert limited.get("/healthz").status_code == 200


def test_addresses_of_one_network_are_limited_together(settings: Settings) -> None:
    rates = Rates(settings.model_copy(update={"requests_per_minute": 8, "requests_burst": 100}))
    for number in range(8):
        rates.count_failure(f"2001:db8::{number:x}")
    with pytest.raises(RateLimited):
        rates.count_failure("2001:db8::ffff")
    rates.count_failure("2001:db8:0:1::1")
    for _ in range(8):
        rates.count_failure("::ffff:192.0.2.1")
    with pytest.raises(RateLimited):
        rates.count_failure("192.0.2.1")
    rates.count_failure("192.0.2.2")


def test_while_redis_is_away_nothing_is_limited_and_that_is_told_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    configure_logs(settings)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        rates = Rates(settings.model_copy(update={"broker_url": url, "requests_per_minute": 1, "requests_burst": 1}))
        assert allowed(rates, "a", 200) == 200
    assert [record.levelname for record in caplog.records if record.name == "api.process.rate_limits"] == ["WARNING"]


def test_processes_count_together_in_redis(
    settings: Settings, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.process.rate_limits._REDIS_SECONDS", 60.0)
    shared = settings.model_copy(update={"broker_url": redis.url, "requests_per_minute": 8, "requests_burst": 100})
    first, second = Rates(shared), Rates(shared)
    assert allowed(first, "a", 5) == 5
    assert allowed(second, "a", 20) == 3
    with pytest.raises(RateLimited):
        first.count_request("a")
    assert allowed(second, "b", 20) == 8


@pytest.mark.parametrize("user", ["", "default@", "default:another@"])
def test_a_password_of_redis_that_no_url_could_hold_gets_hints_and_rates_through(
    settings: Settings, redis: RedisServer, user: str
) -> None:
    password = "a p@ss/word:50%#?"
    redis.client.config_set("requirepass", password)
    redis.client.auth(password)
    update = {"broker_url": redis.url.replace("redis://", f"redis://{user}"), "requests_burst": 1}
    trusted = settings.model_copy(update=update | {"broker_password": SecretStr(password)})
    with celery_app(settings.model_copy(update=update)) as without, celery_app(trusted) as app:
        assert broker_answers(app) and not broker_answers(without)
        hints = Hints(app)
        hints.send("job_1", "default")
        assert hints.count_waiting("default") == 1
    assert allowed(Rates(trusted), "a", 2) == 1
