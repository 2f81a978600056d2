"""A password of Redis that no URL could hold as it is: hints and rates get through with it, and with it alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.process.rate_limits import Rates
from core.service.jobs.broker import broker_answers, celery_app
from core.service.jobs.hints import Hints
from core.settings import Settings
from secateur_wire.errors import RateLimited
from tests.worker.redis_server import RedisServer, redis_running

PASSWORD = "a p@ss/word:50%#?"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as server:
        server.client.config_set("requirepass", PASSWORD)
        server.client.auth(PASSWORD)
        yield server


def with_password(settings: Settings, redis: RedisServer, user: str, password: str | None) -> Settings:
    where = redis.url.replace("redis://", f"redis://{user}")
    secret = None if password is None else SecretStr(password)
    only_one = {"requests_per_minute": 1, "requests_burst": 1}
    return settings.model_copy(update={"broker_url": where, "broker_password": secret, **only_one})


@pytest.mark.parametrize("user", ["", "default@", "default:another@"])
def test_hints_and_rates_get_through(settings: Settings, redis: RedisServer, user: str) -> None:
    trusted = with_password(settings, redis, user, PASSWORD)
    with celery_app(trusted) as app:
        assert broker_answers(app)
        hints = Hints(app)
        hints.send("job_1", "default")
        assert hints.count_waiting("default") == 1
    rates = Rates(trusted)
    rates.count_request("a key")
    with pytest.raises(RateLimited):
        rates.count_request("a key")


@pytest.mark.parametrize("password", [None, "another"])
def test_without_the_password_nothing_does(settings: Settings, redis: RedisServer, password: str | None) -> None:
    with celery_app(with_password(settings, redis, "", password)) as app:
        assert not broker_answers(app)
