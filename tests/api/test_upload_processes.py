import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from bench.parts import free_port, until
from core.database import seconds_from_now, transaction
from core.service.registry.tables import UploadRow
from core.service.sources.folders import content_hash
from core.settings import Settings
from core.storage import Store
from tests.api.uploading import announced, send, send_rest, start
from tests.conftest import bearer
from tests.model_folders import write_llama
from worker.processes import peak_resident_bytes

PART = 4096

StartApi = Callable[[], tuple[subprocess.Popen[bytes], httpx.Client]]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update={"upload_part_bytes": getattr(request, "param", PART)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "llama")


@pytest.fixture
def start_api(settings: Settings, admin_key: str) -> Iterator[StartApi]:
    """Starts the API as a process of its own."""
    started: list[tuple[subprocess.Popen[bytes], httpx.Client]] = []

    def run() -> tuple[subprocess.Popen[bytes], httpx.Client]:
        port = free_port()
        environment = os.environ | {
            "SECATEUR_HOME": str(settings.home),
            "SECATEUR_DATABASE_URL": str(settings.database_url),
            "SECATEUR_SECRET_KEY": str(settings.secret_key),
            "SECATEUR_UPLOAD_PART_BYTES": str(settings.upload_part_bytes),
        }
        command = [sys.executable, "-m", "uvicorn", "--factory", "api.start:create_app", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer(admin_key))
        started.append((process, client))
        until(lambda: client.get("/healthz").is_success, 120, "the API")
        return process, client

    yield run
    for process, client in started:
        client.close()
        process.kill()
        process.wait()


def test_an_upload_outlives_the_api_process(
    start_api: StartApi,
    folder: Path,
    store: Store,
    sessions: sessionmaker[Session],
) -> None:
    """Killed between two parts, in the middle of a part, and while it completes."""
    process, client = start_api()
    body = announced(folder)
    upload = start(client, body)
    weights = (folder / "model.safetensors").read_bytes()
    for offset in range(0, 3 * PART, PART):
        send(client, upload["id"], "model.safetensors", offset, weights[offset : offset + PART]).raise_for_status()

    def killing() -> Iterator[bytes]:
        yield weights[3 * PART : 3 * PART + 1000]
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        yield b"x"

    with pytest.raises(httpx.TransportError):
        client.put(
            f"/v1/uploads/{upload['id']}/files/model.safetensors?offset={3 * PART}",
            content=killing(),
            headers={"Content-Type": "application/octet-stream"},
        )
    process, client = start_api()
    again = client.post("/v1/uploads", json=body).raise_for_status().json()
    assert again["id"] == upload["id"]
    assert {file["path"]: file["received"] for file in again["files"]} == {
        "config.json": 0,
        "model.safetensors": 3 * PART,
    }
    send_rest(client, again, folder)
    with transaction(sessions) as session:  # as left by a process that was killed while it completed
        session.execute(update(UploadRow).values(completing_until=seconds_from_now(60)))
    busy = client.post(f"/v1/uploads/{upload['id']}/complete")
    assert busy.status_code == 503 and int(busy.headers["retry-after"]) > 0
    assert client.delete(f"/v1/uploads/{upload['id']}").status_code == 409
    with transaction(sessions) as session:
        session.execute(update(UploadRow).values(completing_until=seconds_from_now(-1)))
    assert client.post(f"/v1/uploads/{upload['id']}/complete").status_code == 201
    assert client.get("/v1/models/sent").json()["revision"] == content_hash(folder)
    assert list(store.children("uploads")) == []


@pytest.mark.parametrize("settings", [16 * 2**20], indirect=True)
def test_the_api_does_not_grow_with_what_is_sent(start_api: StartApi) -> None:
    """192 MiB by four clients at once."""
    process, client = start_api()
    part = bytes(8 * 2**20)
    size = 6 * len(part)

    def upload(number: int, parts: int) -> None:
        file = {"path": "a.txt", "bytes": size, "sha256": "0" * 64}
        sent = start(client, {"kind": "dataset", "name": f"text-{number}", "files": [file]})["id"]
        for offset in range(0, parts * len(part), len(part)):
            send(client, sent, "a.txt", offset, part).raise_for_status()

    upload(0, parts=1)
    before = psutil.Process(process.pid).memory_info().rss
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: upload(number, parts=6), range(1, 5)))
    assert peak_resident_bytes(process.pid) - before < 96 * 2**20
