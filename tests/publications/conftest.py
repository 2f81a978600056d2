"""A job with an artifact, a hub that can be pushed to, and a dispatcher's turn."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.service.publications.run import publish_waiting
from core.settings import Settings
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.publications.pushable_hub import PushedHub, pushable_hub
from tests.sources.hub_server import TOKEN
from tests.stores.conftest import s3_endpoint, s3_service

__all__ = ["s3_endpoint", "s3_service"]

USERS_TOKEN = "hf_theUsersOwnToken0123456789abcdef"


def content(seed: str, count: int) -> bytes:
    """Bytes that do not repeat."""
    return b"".join(hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(count // 32 + 1))[:count]


FILES = {
    "README.md": b"---\nlicense: apache-2.0\n---\n# A pruned model\n\nPerplexity rose 1.2 times.\n",
    "config.json": b'{"model_type": "llama"}',
    "empty.txt": b"",
    "figures/curve.svg": b"<svg/>",
    "model-00001-of-00003.safetensors": content("first", 5000),
    "model-00002-of-00003.safetensors": content("second", 20_001),
    "model-00003-of-00003.safetensors": content("third", 4000),
    "model-Q8_0.gguf": content("gguf", 3000),
    "secateur.json": b'{"files": {}}',
    "tokenizer.json": b'{"version": "1.0"}',
}


@pytest.fixture
def hub() -> Iterator[PushedHub]:
    with pushable_hub() as state:
        state.writers[USERS_TOKEN] = "acme"
        yield state


@pytest.fixture
def settings(settings: Settings, hub: PushedHub) -> Settings:
    """The server has a token of its own, that may read only."""
    return settings.model_copy(
        update={
            "home": settings.home.resolve(),
            "hub_endpoint": hub.endpoint,
            "hub_token": Settings(hub_token=TOKEN).hub_token,
            "retry_delay_seconds": 0.0,
        }
    )


@pytest.fixture
def job(api: TestClient, sessions: sessionmaker[Session], store: Store, tmp_path: Path, model: str) -> str:
    """Id of a job whose artifact are `FILES`."""
    return succeeded_job(api, sessions, store, tmp_path / "artifact", model=model, files=FILES)


Publish = Callable[..., dict[str, Any]]


@pytest.fixture
def publish(api: TestClient, job: str) -> Publish:
    """Asks for a publication of the job to hub:acme/pruned, but for what is said otherwise; the answer."""

    def ask(**changed: Any) -> dict[str, Any]:
        body = {"to": "hub:acme/pruned", "token": USERS_TOKEN, **changed}
        answer: dict[str, Any] = api.post(f"/v1/jobs/{job}/publish", json=body).raise_for_status().json()
        return answer

    return ask


@pytest.fixture
def carry_out(sessions: sessionmaker[Session], settings: Settings, api: TestClient) -> Callable[[str], dict[str, Any]]:
    """The dispatcher's turn; the publication after it."""

    def turn(publication: str) -> dict[str, Any]:
        publish_waiting(sessions, settings)
        answer: dict[str, Any] = api.get(f"/v1/publications/{publication}").raise_for_status().json()
        return answer

    return turn


@pytest.fixture
def dispatcher(sessions: sessionmaker[Session], settings: Settings) -> Iterator[None]:
    """Somebody carries out what is asked."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.05):
            publish_waiting(sessions, settings)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join(60)
