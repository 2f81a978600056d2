"""The commands on models, texts, keys, team, workers and the audit trail, against the real service."""

from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy.orm import Session, sessionmaker

from core.engine.exporters.packed.exporter import pack_folder
from core.storage import Store
from secateur_wire.weights.packed import SUFFIX
from tests.api.ended_job import succeeded_job
from tests.client.command_line import RunHere
from tests.image_sets import grays, write_parquet
from tests.model_folders import write_llama, write_text


def test_a_model_and_a_text_are_uploaded_and_deleted(here: RunHere, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "oak")
    (folder / "notes.txt").write_text("stay here")
    sent = here("models", "upload", "oak", str(folder))
    assert sent.code == 0 and "LlamaForCausalLM" in sent.out and "notes.txt" in sent.err
    text = write_text(tmp_path / "leaves.txt")
    assert here("datasets", "upload", "leaves", str(text), "--json").json["documents"] == 200
    images = write_parquet(tmp_path / "shades.parquet", grays(4), [0, 1, 1, 0], label="y")
    sent = here("datasets", "upload", "shades", str(images), "--format", "image_parquet", "--label-field", "y")
    assert sent.code == 0 and "4 images, 2 classes" in sent.out
    assert "oak" in here("models").out and "oak" in here("models", "list").out
    listed = here("datasets").out
    assert "leaves" in listed and "4 images" in listed and "leaves" in here("datasets", "list").out
    assert [each["name"] for each in here("models", "list", "--json").json] == ["oak"]
    assert here("models", "delete", "oak").out == "oak is deleted.\n"
    assert [here("datasets", "delete", name).code for name in ("leaves", "shades")] == [0, 0]
    gone = here("datasets", "delete", "leaves")
    assert (gone.code, gone.out) == (2, "") and "not_found" in gone.err
    assert "upload" in here("models").out and "upload" in here("datasets").out


def test_an_inspection_assumes_what_a_job_has_to_have_and_says_so(here: RunHere, model: str, tmp_path: Path) -> None:
    own = here("inspect", model, "--sparsity", "0.5")
    assert own.code == 0, own.err
    assert "method frontier, the usual one" in own.out and "that the model writes itself" in own.out
    text = write_text(tmp_path / "leaves.txt", words=40_000)
    assert here("datasets", "upload", "leaves", str(text)).code == 0
    tried = here("inspect", model, "--method", "wanda", "--sparsity", "0.5", "--json").json
    assert tried["job"]["calibration"]["dataset"] == "leaves" and len(tried["assumed"]) == 1
    named = here("inspect", model, "--method", "magnitude", "--sparsity", "0.5", "--json").json
    assert named["assumed"] == [] and here("inspect", model, "--json").json["job"] is None
    assert here("inspect", model, "--method", "wanda").code == 2


def test_keys_are_made_rotated_and_revoked(here: RunHere, live_api: httpx.Client) -> None:
    made = here("keys", "create", "--name", "pipeline", "--role", "viewer", "--days", "30")
    key = made.out.strip()
    assert made.code == 0 and key.startswith("sct_") and key not in made.err and "only this time" in made.err
    assert live_api.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    (listed,) = (each for each in here("keys", "list", "--json").json if each["name"] == "pipeline")
    successor = here("keys", "rotate", listed["id"], "--grace-hours", "0", "--json").json
    assert successor["role"] == "viewer" and successor["key"] != key
    assert live_api.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 401
    assert "is revoked" in here("keys", "revoke", successor["id"]).out
    table = here("keys", "list").out
    assert "pipeline" in table and "revoked" in table and key not in table
    assert here("keys", "create", "--role", "gardener").code == 2


def test_the_team_its_workers_and_what_was_changed(
    here: RunHere, live_api: httpx.Client, sessions: sessionmaker[Session], store: Store, tmp_path: Path, model: str
) -> None:
    assert "No worker" in here("workers").out and "No job waits" in here("queues").out
    job = succeeded_job(live_api, sessions, store, tmp_path / "artifact", model=model)
    team = here("team")
    for text in ("gardeners", "stored", "no limit", "device hours since"):
        assert text in team.out
    assert here("team", "--json").json["usage"]["stored_bytes"] == 9
    assert "worker_1" in here("workers").out and here("workers", "--json").json[0]["queue"] == "default"
    [queue] = here("queues", "--json").json
    assert (queue["name"], queue["queued"], queue["running"]) == ("default", 0, 0)
    assert here("jobs", "attempts", job, "--json").json[0]["attempt"] == 1
    changes = here("audit", "--action", "job.submit")
    assert job in changes.out and "key_" in changes.out


def test_a_packed_artifact_is_unpacked_where_it_is_wanted(
    here: RunHere, live_api: httpx.Client, sessions: sessionmaker[Session], store: Store, tmp_path: Path, model: str
) -> None:
    weights = np.where(np.arange(40_000) % 2, np.arange(40_000), 0).astype(np.float32)
    checkpoint = tmp_path / "oak"
    checkpoint.mkdir()
    save_file({"a": weights, "b": weights[:10]}, checkpoint / "model.safetensors")
    dense = (checkpoint / "model.safetensors").read_bytes()
    pack_folder(checkpoint)
    (packed,) = checkpoint.iterdir()
    files = {packed.name: packed.read_bytes(), "secateur.json": b"{}"}
    job = succeeded_job(live_api, sessions, store, tmp_path / "artifact", model=model, files=files)
    plain = here("download", job, str(tmp_path / "plain"))
    assert plain.code == 0 and (tmp_path / "plain" / packed.name).is_file()
    done = here("download", job, str(tmp_path / "here"), "--unpack", "--json")
    assert done.code == 0 and len(done.json["unpacked"]) == 1
    assert not list((tmp_path / "here").glob(f"*{SUFFIX}"))
    assert (tmp_path / "here" / "model.safetensors").read_bytes() == dense
    damaged = {packed.name: packed.read_bytes()[:-1] + b"!", "secateur.json": b"{}"}
    job = succeeded_job(live_api, sessions, store, tmp_path / "damaged", model=model, files=damaged)
    failed = here("download", job, str(tmp_path / "there"), "--unpack")
    assert failed.code == 1 and packed.name in failed.err and "Traceback" not in failed.err
    assert (tmp_path / "there" / packed.name).is_file()


@pytest.fixture
def jobs(live_api: httpx.Client, model: str) -> list[str]:
    """Ids of three jobs, oldest first."""
    body = {"model": model, "method": "magnitude", "sparsity": 0.5}
    return [live_api.post("/v1/jobs", json=body).raise_for_status().json()["id"] for _ in range(3)]


def beginning(job: str, *others: str) -> str:
    """Return the shortest beginning that is the job's alone."""
    return next(job[:end] for end in range(5, 31) if not any(each.startswith(job[:end]) for each in others))


def test_a_beginning_that_is_unique_and_the_newest_job_stand_for_the_id(here: RunHere, jobs: list[str]) -> None:
    short = beginning(jobs[0], *jobs[1:])
    assert len(short) < 30
    for given, meant in ((short, jobs[0]), (short.removeprefix("job_").upper(), jobs[0]), ("-", jobs[2])):
        assert here("show", given, "--json").json["id"] == meant, given
    assert here("cancel", "-").out == f"{jobs[2]} is cancelled.\n"
    assert jobs[2] in here("audit", "--object", jobs[2][:-1]).out


def test_what_is_not_unique_names_those_it_may_be(here: RunHere, jobs: list[str]) -> None:
    several = here("cancel", "job_0")
    assert several.code == 2 and several.out == ""
    assert all(job in several.err for job in jobs) and "write more" in " ".join(several.err.split())
    none = here("show", "0zzzzzzz")
    assert none.code == 2 and "begins with '0zzzzzzz'" in " ".join(none.err.split())
