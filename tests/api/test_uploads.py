import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_now, transaction
from core.service.registry.check_slots import CheckSlots
from core.service.registry.tables import UploadRow
from core.service.registry.upload_completion import complete_upload
from core.service.sources.folders import content_hash
from core.service.teams.principal import Principal
from core.settings import Settings
from core.storage import LocalStore, Store
from core.storage.store import UploadPart
from secateur_wire.errors import Unavailable
from tests.api.uploading import announced, send, send_rest, start, stored_bytes
from tests.image_sets import grays, write_folder, write_parquet
from tests.model_folders import write_llama, write_text

PART = 4096


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update={"upload_part_bytes": getattr(request, "param", PART)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "llama")


def test_a_model_is_uploaded_and_registered(
    api: TestClient, folder: Path, store: Store, sessions: sessionmaker[Session], team: str, job_body: dict[str, Any]
) -> None:
    body = announced(folder)
    upload = start(api, body)
    assert (upload["object"], upload["status"], upload["part_bytes"]) == ("upload", "open", PART)
    assert [file["received"] for file in upload["files"]] == [0, 0]
    size = sum(file["bytes"] for file in body["files"])
    before = stored_bytes(sessions, team)
    assert before == size
    send_rest(api, upload, folder)
    completed = api.post(f"/v1/uploads/{upload['id']}/complete")
    assert completed.status_code == 201, completed.text
    model = completed.json()
    assert (model["name"], model["source"], model["layers"]) == ("sent", "upload", 2)
    assert model["revision"] == content_hash(folder)
    assert api.get("/v1/models/sent").json() == model
    for file in body["files"]:
        content = b"".join(store.open_range(f"models/{model['id']}", file["path"], 0, file["bytes"]))
        assert content == (folder / file["path"]).read_bytes()
    assert list(store.children("uploads")) == [] and list(store.unfinished()) == []
    assert stored_bytes(sessions, team) == size
    again = api.post(f"/v1/uploads/{upload['id']}/complete")
    assert (again.status_code, again.json()) == (200, model)
    assert api.get(f"/v1/uploads/{upload['id']}").json()["status"] == "complete"
    job = api.post("/v1/jobs", json=job_body | {"model": "sent"})
    assert job.status_code == 201, job.text
    assert api.delete("/v1/models/sent").json()["code"] == "conflict"
    api.post(f"/v1/jobs/{job.json()['id']}/cancel").raise_for_status()
    assert api.delete("/v1/models/sent").status_code == 204
    assert api.get("/v1/models/sent").status_code == 404
    assert stored_bytes(sessions, team) == 0
    assert list(store.children("models")) == []
    actions = [entry["action"] for entry in api.get("/v1/audit").json()["data"]]
    assert {"upload.start", "upload.complete", "model.register", "model.delete"} <= set(actions)


def test_a_text_is_uploaded_and_registered(api: TestClient, tmp_path: Path, store: Store) -> None:
    file = write_text(tmp_path / "texts" / "numbers.jsonl")
    file.write_text("".join(json.dumps({"body": f"number {n}"}) + "\n" for n in range(500)))
    body = announced(file.parent, kind="dataset", text_field="body")
    upload = start(api, body)
    send_rest(api, upload, file.parent)
    completed = api.post(f"/v1/uploads/{upload['id']}/complete")
    assert completed.status_code == 201, completed.text
    text = completed.json()
    assert (text["object"], text["sha256"], text["text_field"]) == ("dataset", body["files"][0]["sha256"], "body")
    assert text["documents"] == 500
    assert start_again(api, body)["status"] == "complete"
    assert api.delete("/v1/datasets/sent").status_code == 204
    assert list(store.children("datasets")) == []


def start_again(api: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = api.post("/v1/uploads", json=body).raise_for_status().json()
    return answer


def test_the_same_announcement_goes_on_with_the_open_upload(api: TestClient, folder: Path) -> None:
    body = announced(folder)
    upload = start(api, body)
    weights = (folder / "model.safetensors").read_bytes()
    assert send(api, upload["id"], "model.safetensors", 0, weights[:PART]).status_code == 200
    response = api.post("/v1/uploads", json=body | {"files": body["files"][::-1], "source": "another note"})
    assert response.status_code == 200
    again = response.json()
    assert again["id"] == upload["id"]
    assert {file["path"]: file["received"] for file in again["files"]} == {"config.json": 0, "model.safetensors": PART}
    assert api.get("/v1/uploads").json()["data"] == [again]
    changed = json.loads(json.dumps(body))
    changed["files"][0]["sha256"] = "0" * 64
    response = api.post("/v1/uploads", json=changed)
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert upload["id"] in response.json()["detail"]


def test_a_taken_name_is_told_at_the_start(api: TestClient, folder: Path, tmp_path: Path, model: str) -> None:
    other = announced(write_llama(tmp_path / "other", seed=1), name=model)
    response = api.post("/v1/uploads", json=other)
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (409, "conflict", "name")
    same = start(api, announced(folder, name=model))
    assert same["status"] == "complete" and all(file["received"] == file["bytes"] for file in same["files"])
    response = api.post(f"/v1/uploads/{same['id']}/complete")
    assert (response.status_code, response.json()["name"]) == (200, model)


def test_a_file_with_another_hash_is_sent_again_alone(api: TestClient, folder: Path) -> None:
    upload = start(api, announced(folder))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    for offset in range(0, len(weights), PART):
        assert (
            send(api, upload["id"], "model.safetensors", offset, bytes(weights[offset : offset + PART])).status_code
            == 200
        )
    assert send(api, upload["id"], "config.json", 0, (folder / "config.json").read_bytes()).status_code == 200
    response = api.post(f"/v1/uploads/{upload['id']}/complete")
    assert (response.status_code, response.json()["code"]) == (422, "upload_refused")
    assert "model.safetensors" in response.json()["detail"] and "config.json" not in response.json()["detail"]
    now = api.get(f"/v1/uploads/{upload['id']}").json()
    assert now["status"] == "open"
    assert {file["path"]: file["received"] == file["bytes"] for file in now["files"]} == {
        "config.json": True,
        "model.safetensors": False,
    }
    send_rest(api, now, folder)
    assert api.post(f"/v1/uploads/{upload['id']}/complete").status_code == 201


def test_giving_up_frees_space_and_the_name(
    api: TestClient, folder: Path, store: Store, sessions: sessionmaker[Session], team: str
) -> None:
    upload = start(api, announced(folder))
    send_rest(api, upload, folder)
    assert api.delete(f"/v1/uploads/{upload['id']}").status_code == 204
    assert api.get(f"/v1/uploads/{upload['id']}").status_code == 404
    assert api.delete(f"/v1/uploads/{upload['id']}").status_code == 404
    assert (stored_bytes(sessions, team), list(store.children("uploads"))) == (0, [])
    assert send(api, upload["id"], "config.json", 0, b"x").status_code == 404
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    start(api, announced(folder))


def test_of_two_that_send_the_same_part_one_is_told_where_to_go_on(live_api: httpx.Client, folder: Path) -> None:
    upload = start(live_api, announced(folder))
    weights = (folder / "model.safetensors").read_bytes()
    barrier = threading.Barrier(8)

    def client(number: int) -> None:
        barrier.wait()
        offset = 0
        while offset < len(weights):
            response = send(live_api, upload["id"], "model.safetensors", offset, weights[offset : offset + PART])
            assert response.status_code in (200, 409), response.text
            offset = response.json()["received"]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    send(live_api, upload["id"], "config.json", 0, (folder / "config.json").read_bytes()).raise_for_status()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: live_api.post(f"/v1/uploads/{upload['id']}/complete"), range(4)))
    statuses = sorted(response.status_code for response in done)
    assert statuses[:1] != [] and statuses.count(201) == 1 and set(statuses) <= {200, 201, 503}, statuses
    assert live_api.get("/v1/models/sent").json()["revision"] == content_hash(folder)


def test_announced_twice_at_once_it_is_one_upload(live_api: httpx.Client, folder: Path) -> None:
    body = announced(folder)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: live_api.post("/v1/uploads", json=body), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_completion_that_stood_still_until_another_took_over_writes_nothing_down(
    api: TestClient, folder: Path, store: Store, sessions: sessionmaker[Session], team: str, settings: Settings
) -> None:
    upload = start(api, announced(folder))
    send_rest(api, upload, folder)
    principal, slots = Principal(team, "key_test", "admin"), CheckSlots(1)

    class StoreThatIsSlow(LocalStore):
        """While it puts the first file together, the lease runs out and another request completes the upload."""

        taken_over = False

        def join(self, prefix: str, parts: Sequence[UploadPart], target: str, path: str) -> None:
            super().join(prefix, parts, target, path)
            if not self.taken_over:
                self.taken_over = True
                with transaction(sessions) as session:
                    session.execute(update(UploadRow).values(completing_until=seconds_from_now(-1)))
                assert complete_upload(sessions, store, principal, upload["id"], settings, slots)[1]

    with pytest.raises(Unavailable, match="by another request"):
        complete_upload(sessions, StoreThatIsSlow(settings.store_root), principal, upload["id"], settings, slots)
    assert api.get("/v1/models/sent").json()["revision"] == content_hash(folder)


def register(api: TestClient, path: Path, name: str = "shades", **more: str) -> tuple[int, dict[str, Any]]:
    response = api.post("/v1/datasets", json={"name": name, "path": str(path.absolute()), **more})
    return response.status_code, response.json()


def test_a_folder_of_images_is_registered(api: TestClient, settings: Settings, tmp_path: Path) -> None:
    folder = write_folder(settings.datasets_root / "shades", grays(6), ["dark", "light"])
    status, dataset = register(api, folder)
    assert (status, dataset["format"], dataset["images"], dataset["classes"]) == (201, "image_folder", 6, 2)
    assert f"sha256:{dataset['sha256']}" == content_hash(folder) and dataset["documents"] == 0
    assert register(api, folder)[0] == 200
    (folder / "dark" / "more.png").write_bytes(grays(1)[0])
    status, problem = register(api, folder)
    assert (status, problem["code"], problem["param"]) == (409, "conflict", "name")
    (tmp_path / "secret.png").write_bytes(grays(1)[0])
    (folder / "light" / "link.png").symlink_to(tmp_path / "secret.png")
    assert register(api, folder, "linked")[1]["code"] == "path_escapes"
    broken = write_folder(settings.datasets_root / "broken", [*grays(3), b"no image"], ["a"])
    assert "1 of 4 images cannot be read: a/0003.png" in register(api, broken, "broken")[1]["detail"]
    assert api.delete("/v1/datasets/shades").status_code == 204 and folder.exists()


def test_images_are_uploaded_as_parquet(api: TestClient, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "sent" / "a.parquet", grays(5), ["on", "off", "on", "on", "off"])
    body = announced(file.parent, name="switches", kind="dataset")
    refused = api.post("/v1/uploads", json=body | {"format": "image_folder"})
    assert (refused.status_code, refused.json()["code"]) == (422, "upload_refused")
    assert "to_parquet" in refused.json()["detail"]
    upload = start(api, body | {"format": "image_parquet"})
    send_rest(api, upload, file.parent)
    completed = api.post(f"/v1/uploads/{upload['id']}/complete")
    assert completed.status_code == 201, completed.text
    dataset = completed.json()
    assert (dataset["images"], dataset["classes"], dataset["label_field"]) == (5, 2, "label")
    assert dataset["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert api.post("/v1/uploads", json=body | {"format": "image_parquet"}).json()["status"] == "complete"
