"""Models that come with a signed statement: what is believed of it, and what is told of one that does not hold."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings
from core.signing import public_key
from core.storage import Store
from secateur_wire.provenance import PROVENANCE
from tests.client.command_line import RunHere
from tests.conftest import bearer
from tests.signed_artifact import Signed, upload, write_key

NOTHING = {"job": None, "source": None, "method": None, "data": []}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"signing_key": write_key(tmp_path / "signing-key")})


@pytest.fixture
def key(settings: Settings) -> Path:
    assert settings.signing_key is not None
    return settings.signing_key


@pytest.fixture
def signed(api: TestClient, sessions: sessionmaker[Session], store: Store, tmp_path: Path) -> Signed:
    return Signed(api, sessions, store, tmp_path)


def register(api: TestClient, settings: Settings, folder: Path) -> dict[str, Any]:
    place = shutil.copytree(folder, settings.models_root / folder.name)
    answer = api.post("/v1/models", json={"name": folder.name.replace("_", "-"), "path": str(place)})
    assert answer.status_code == 201, answer.text
    model: dict[str, Any] = answer.json()
    return model


def test_an_uploaded_artifact_says_which_job_model_and_data_made_it(
    api: TestClient, signed: Signed, job_body: dict[str, Any], key: Path, settings: Settings
) -> None:
    job, folder = signed.artifact(job_body, key)
    model = upload(api, folder, "again")
    dense = api.get(f"/v1/models/{job_body['model']}").json()
    assert dense["provenance"] is None
    expected = {
        "signature": "own",
        "reason": None,
        "keyids": [public_key(key).keyid],
        "job": job,
        "source": {"name": dense["name"], "revision": dense["revision"]},
        "method": job_body["method"],
        "data": [{"name": "leaves", "sha256": "b" * 64}],
    }
    assert model["provenance"] == expected
    assert api.get("/v1/models/again").json()["provenance"] == expected
    assert api.get("/v1/models").json()["data"][0]["provenance"] == expected
    assert register(api, settings, folder)["provenance"] == expected
    assert api.post("/v1/jobs", json=job_body | {"model": "again"}).status_code == 201


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    envelope = json.loads((folder / PROVENANCE).read_text())
    change(envelope)
    (folder / PROVENANCE).write_text(json.dumps(envelope))


def _forge(folder: Path) -> None:
    def change(envelope: dict[str, Any]) -> None:
        payload = base64.b64decode(envelope["payload"]).replace(b'"leaves"', b'"thorns"')
        envelope["payload"] = base64.b64encode(payload).decode()

    _edit(folder, change)


def _change_weights(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (_forge, "was changed after it was signed: its signature is not the one of key"),
        (_change_weights, "model.safetensors has other bytes than were signed"),
        (lambda folder: _edit(folder, lambda envelope: envelope.update(signatures=[])), "has no signature"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json is not of this artifact"),
        (lambda folder: (folder / PROVENANCE).write_text("[" * 10**5), "is no signed statement"),
    ],
)
def test_what_does_not_hold_is_told_and_nothing_of_it_believed(
    signed: Signed, job_body: dict[str, Any], key: Path, attack: Callable[[Path], object], said: str
) -> None:
    _, folder = signed.artifact(job_body, key)
    attack(folder)
    provenance = upload(signed.api, folder, "again")["provenance"]
    assert provenance["signature"] == "invalid" and said in provenance["reason"]
    assert NOTHING.items() <= provenance.items()


def test_a_key_of_others_is_named_and_its_statement_not_believed(
    api: TestClient, signed: Signed, job_body: dict[str, Any], tmp_path: Path
) -> None:
    foreign = write_key(tmp_path / "foreign")
    _, folder = signed.artifact(job_body, foreign)
    provenance = upload(api, folder, "again")["provenance"]
    assert (provenance["signature"], provenance["keyids"]) == ("foreign", [public_key(foreign).keyid])
    assert NOTHING.items() <= provenance.items()


def test_an_earlier_key_of_the_installation_is_its_own(
    api: TestClient, signed: Signed, job_body: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    earlier, keys = write_key(tmp_path / "earlier"), tmp_path / "keys.pub"
    keys.write_text(public_key(earlier).pem)
    api.app.state.settings.signing_public_keys = keys  # type: ignore[attr-defined]
    job, folder = signed.artifact(job_body, earlier)
    provenance = upload(api, folder, "again")["provenance"]
    assert (provenance["signature"], provenance["job"]) == ("own", job)


def test_the_job_of_another_team_is_not_named(
    api: TestClient, signed: Signed, job_body: dict[str, Any], key: Path, other_team_key: str
) -> None:
    job, folder = signed.artifact(job_body, key)
    api.headers.update(bearer(other_team_key))
    model = upload(api, folder, "ours")
    assert (model["provenance"]["signature"], model["provenance"]["job"]) == ("own", None)
    assert job not in json.dumps(model)
    assert job not in json.dumps(api.get("/v1/models/ours").json())


def test_the_command_line_sends_the_statement_and_tells_what_the_server_says_of_it(
    here: RunHere, signed: Signed, job_body: dict[str, Any], key: Path
) -> None:
    job, folder = signed.artifact(job_body, key)
    sent = here("models", "upload", "again", str(folder))
    assert sent.code == 0 and PROVENANCE not in sent.err
    assert f"{job}: {job_body['method']} on {job_body['model']}; signed by this server" in sent.out
    _change_weights(folder)
    assert (
        "does not count here: model.safetensors has other bytes" in here("models", "upload", "other", str(folder)).out
    )
