"""How a client uploads."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.teams.tables import TeamRow


def announced(folder: Path, name: str = "sent", **change: Any) -> dict[str, Any]:
    files = [
        {"path": file.name, "bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(folder.iterdir())
    ]
    return {"kind": "model", "name": name, "files": files} | change


def send(api: httpx.Client, upload: str, path: str, offset: int, content: bytes) -> httpx.Response:
    return api.put(
        f"/v1/uploads/{upload}/files/{path}",
        params={"offset": offset},
        content=content,
        headers={"Content-Type": "application/octet-stream"},
    )


def send_rest(api: httpx.Client, upload: dict[str, Any], folder: Path) -> None:
    """What a client does to go on: from what was received, part by part."""
    for file in upload["files"]:
        content = (folder / file["path"]).read_bytes()
        for start in range(file["received"], len(content), upload["part_bytes"]):
            end = start + upload["part_bytes"]
            sent = send(api, upload["id"], file["path"], start, content[start:end])
            assert (sent.status_code, sent.json()["received"]) == (200, min(end, len(content))), sent.text


def start(api: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    response = api.post("/v1/uploads", json=body)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def stored_bytes(sessions: sessionmaker[Session], team: str) -> int:
    with transaction(sessions) as session:
        return session.scalars(select(TeamRow.stored_bytes).where(TeamRow.id == team)).one()
