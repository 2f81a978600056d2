import struct
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.teams.tables import TeamRow
from core.settings import Settings
from core.storage import Store
from tests.api.uploading import announced, send, send_rest, start, stored_bytes
from tests.model_folders import write_llama

PART = 4096


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update={"upload_part_bytes": getattr(request, "param", PART)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "llama")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"files": []}, "invalid_request"),
        ({"files": [{"path": "../x", "bytes": 1, "sha256": "0" * 64}]}, "invalid_request"),
        ({"files": [{"path": "config.json", "bytes": 1, "sha256": "0" * 64}]}, "missing_tensors"),
        ({"files": [{"path": "pytorch_model.bin", "bytes": 1, "sha256": "0" * 64}]}, "pickle_checkpoint"),
        ({"files": [{"path": "modeling_x.py", "bytes": 1, "sha256": "0" * 64}]}, "upload_refused"),
        ({"files": [{"path": "model.safetensors", "bytes": 2**30, "sha256": "0" * 64}]}, "payload_too_large"),
        ({"files": [{"path": "config.json", "bytes": 2**23, "sha256": "0" * 64}]}, "unusable_model"),
        ({"kind": "dataset", "files": [{"path": "a.pdf", "bytes": 1, "sha256": "0" * 64}]}, "unusable_dataset"),
    ],
)
def test_what_cannot_become_a_model_or_text_is_refused_before_it_is_sent(
    api: TestClient, folder: Path, change: dict[str, Any], code: str
) -> None:
    body = announced(folder) | change
    response = api.post("/v1/uploads", json=body)
    assert response.json()["code"] == code, response.text
    twice = announced(folder)
    twice["files"].append(twice["files"][0])
    assert api.post("/v1/uploads", json=twice).json()["code"] == "upload_refused"
    assert api.get("/v1/uploads").json()["data"] == []


def test_parts_that_do_not_fit_are_refused_and_nothing_is_lost(api: TestClient, folder: Path) -> None:
    upload = start(api, announced(folder))["id"]
    weights = (folder / "model.safetensors").read_bytes()

    def refused(code: str, offset: int, content: bytes, path: str = "model.safetensors") -> dict[str, Any]:
        response = send(api, upload, path, offset, content)
        assert response.json()["code"] == code, response.text
        problem: dict[str, Any] = response.json()
        return problem

    assert send(api, upload, "model.safetensors", 0, weights[:PART]).status_code == 200
    for offset in (0, PART - 1, PART + 1, 2**50):
        assert refused("offset_mismatch", offset, b"x")["received"] == PART
    assert refused("payload_too_large", PART, b"x" * (PART + 1))["status"] == 413
    refused("upload_refused", PART, b"")
    refused("not_found", 0, b"x", "tokenizer.json")
    refused("invalid_request", -1, b"x")
    config = (folder / "config.json").read_bytes()
    assert "announced with" in refused("upload_refused", 0, config + b" ", "config.json")["detail"]
    chunked = api.put(
        f"/v1/uploads/{upload}/files/model.safetensors?offset={PART}",
        content=iter([b"x" * PART, b"x"]),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert chunked.json()["code"] == "payload_too_large"
    form = api.put(f"/v1/uploads/{upload}/files/config.json?offset=0", data={"a": "b"})
    assert (form.status_code, form.json()["param"]) == (422, "Content-Type")
    incomplete = api.post(f"/v1/uploads/{upload}/complete")
    assert incomplete.json()["code"] == "upload_refused" and "config.json" in incomplete.json()["detail"]
    upload_now = api.get(f"/v1/uploads/{upload}").json()
    assert {file["path"]: file["received"] for file in upload_now["files"]} == {
        "config.json": 0,
        "model.safetensors": PART,
    }
    send_rest(api, upload_now, folder)
    assert api.post(f"/v1/uploads/{upload}/complete").status_code == 201


@pytest.mark.parametrize("part", [100, PART])
def test_a_header_that_lies_is_refused_before_the_rest_is_accepted(api: TestClient, folder: Path, part: int) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    content[8 : 8 + length] = content[8 : 8 + length].replace(b"F32", b"F16")
    weights.write_bytes(content)
    upload = start(api, announced(folder))["id"]
    offset = 0
    while (answer := send(api, upload, weights.name, offset, bytes(content[offset : offset + part]))).is_success:
        offset += part
    assert (answer.status_code, answer.json()["code"]) == (422, "corrupt_safetensors"), answer.text
    assert offset < 8 + length <= offset + part, "not refused with the part that completes the header"
    over = api.get(f"/v1/uploads/{upload}").json()
    assert {file["path"]: file["received"] for file in over["files"]}[weights.name] == offset
    assert (over["status"], over["error"]["code"]) == ("failed", "corrupt_safetensors")


def test_a_header_of_an_absurd_length_is_refused_with_the_first_part(api: TestClient, folder: Path) -> None:
    weights = folder / "model.safetensors"
    for length in (10**7, 2**64 - 1):
        weights.write_bytes(struct.pack("<Q", length) + b"{" * 5000)
        upload = start(api, announced(folder))["id"]
        response = send(api, upload, weights.name, 0, weights.read_bytes()[:PART])
        assert (response.status_code, response.json()["code"]) == (422, "corrupt_safetensors")


def test_a_file_that_is_no_model_ends_the_upload_with_the_reason_and_gives_its_space_back(
    api: TestClient, folder: Path, store: Store, sessions: sessionmaker[Session], team: str
) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"\xff" * len(whole))
    broken = announced(folder)
    upload = start(api, broken)["id"]
    assert send(api, upload, "config.json", 0, (folder / "config.json").read_bytes()).status_code == 200
    refused = send(api, upload, weights.name, 0, weights.read_bytes()[:PART]).json()
    over = api.get(f"/v1/uploads/{upload}").json()
    assert over["status"] == "failed"
    assert over["error"] == {"code": "corrupt_safetensors", "message": refused["detail"]}
    assert weights.name in refused["detail"] and refused["detail"].endswith("and upload the model once more")
    assert stored_bytes(sessions, team) == 0 and list(store.children("uploads")) == []
    assert api.get("/v1/uploads?status=open").json()["data"] == []
    for answer in (
        send(api, upload, weights.name, 0, weights.read_bytes()[:PART]),
        api.post(f"/v1/uploads/{upload}/complete"),
    ):
        assert answer.json()["code"] == "upload_refused" and refused["detail"] in answer.json()["detail"]
    again = start(api, broken)
    assert again["id"] != upload and sum(file["received"] for file in again["files"]) == 0
    assert api.delete(f"/v1/uploads/{again['id']}").status_code == 204
    weights.write_bytes(whole)
    mended = start(api, announced(folder))
    send_rest(api, mended, folder)
    assert api.post(f"/v1/uploads/{mended['id']}/complete").status_code == 201


def test_an_unsafe_file_beside_the_config_is_refused_when_it_is_there(api: TestClient, folder: Path) -> None:
    unsafe = {
        "tokenizer_config.json": (b'{"a": {"auto_map": {"AutoTokenizer": "x.Y"}}}', "unsafe_config", "'a.auto_map'"),
        "special_tokens_map.json": (b'{"vocab_file": "/etc/passwd"}', "unsafe_config", "'vocab_file'"),
        "generation_config.json": (b'{"custom_generate": "org/code"}', "unsafe_config", "'custom_generate'"),
        "preprocessor_config.json": (b'{"auto_map": {}}', "unsafe_config", "'auto_map'"),
        "chat_template.jinja": (b"{% for x in y %}", "unusable_model", "chat template that is not valid Jinja"),
    }
    for name, (content, code, words) in unsafe.items():
        (folder / name).write_bytes(content)
        response = send(api, start(api, announced(folder))["id"], name, 0, content)
        (folder / name).unlink()
        assert (response.status_code, response.json()["code"]) == (422, code)
        assert f"{name} holds" in response.json()["detail"] and words in response.json()["detail"]


def test_a_quota_is_told_at_the_start(
    api: TestClient, folder: Path, sessions: sessionmaker[Session], team: str
) -> None:
    with transaction(sessions) as session:
        session.execute(update(TeamRow).where(TeamRow.id == team).values(max_stored_bytes=100))
    response = api.post("/v1/uploads", json=announced(folder))
    assert (response.status_code, response.json()["code"]) == (429, "quota_exceeded")
    assert int(response.headers["retry-after"]) > 0
    assert api.get("/v1/uploads").json()["data"] == []
    assert stored_bytes(sessions, team) == 0
