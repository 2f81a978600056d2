"""The commands on models, texts, keys, team, workers and the audit trail, against the real service."""

import json
import os
import pty
import shlex
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy.orm import Session, sessionmaker

from core.engine.exporters.packed.exporter import pack_folder
from core.storage import Store
from secateur_wire.weights.packed import SUFFIX
from tests.api.ended_job import succeeded_job
from tests.client.command_line import COMMAND, RunHere
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
    folder_of_images = here("datasets", "upload", "shades", str(tmp_path))
    assert folder_of_images.code == 1 and "one Parquet file" in folder_of_images.err
    assert "oak" in here("models").out and "oak" in here("models", "list").out
    listed = here("datasets").out
    assert "leaves" in listed and "4 images" in listed and "leaves" in here("datasets", "list").out
    assert [each["name"] for each in here("models", "list", "--json").json] == ["oak"]
    assert here("datasets", "list", "--json").json == here("datasets", "--json").json
    assert here("models", "delete", "oak").out == "oak is deleted.\n"
    assert [here("datasets", "delete", name).code for name in ("leaves", "shades")] == [0, 0]
    gone = here("datasets", "delete", "leaves")
    assert (gone.code, gone.out) == (2, "") and "not_found" in gone.err
    assert "upload" in here("models").out and "upload" in here("datasets").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("models upload oak {tmp}/none", "is not a folder"),
        ("models upload oak {tmp}", "holds no model"),
        ("datasets upload leaves {tmp}/none.txt", "is not a file"),
        ("datasets upload leaves {tmp}/a.doc", "suffix"),
    ],
)
def test_what_cannot_be_uploaded_is_named(here: RunHere, tmp_path: Path, arguments: str, said: str) -> None:
    (tmp_path / "a.doc").write_text("words")
    done = here(*arguments.format(tmp=tmp_path).split())
    assert done.code in (1, 2) and done.out == "" and said in done.err and "Traceback" not in done.err


def test_a_name_is_refused_by_its_rule_in_words(here: RunHere, tmp_path: Path) -> None:
    text, folder = write_text(tmp_path / "f.txt"), write_llama(tmp_path / "folder")
    for done in (
        here("datasets", "add", "Größe", str(text)),
        here("datasets", "upload", "Größe", str(text)),
        here("models", "add", "Größe", str(folder)),
        here("models", "upload", "Größe", str(folder)),
    ):
        assert done.code == 2 and done.out == ""
        assert done.err.splitlines()[-1].startswith("secateur: name: 'Größe' is not valid here: use 1 to 96 lowercase")


def test_a_job_body_with_a_name_for_an_object_is_told_the_option(here: RunHere, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": "oak", "method": "wanda", "sparsity": 0.5, "calibration": "x"}))
    done = here("submit", "--body", str(body))
    assert done.code == 2 and '{"dataset": "x"}' in done.err and "--calibration NAME" in done.err


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


def test_a_job_without_the_calibration_it_needs_is_offered_what_there_is(
    here: RunHere, model: str, tmp_path: Path
) -> None:
    text = write_text(tmp_path / "leaves.txt", words=40_000)
    assert here("datasets", "upload", "leaves", str(text)).code == 0
    refused = here("submit", model, "--method", "wanda", "--sparsity", "0.5", "--sequence-length", "32")
    assert refused.code == 2 and "--sequence-length needs" in refused.err
    refused = here("submit", model, "--method", "wanda", "--sparsity", "0.5", "--prompt", "Once upon")
    assert refused.code == 2 and refused.out == ""
    assert "calibration is required" in refused.err and "datasets add NAME PATH" in refused.err
    ways = [line for line in refused.err.splitlines() if line.startswith("  secateur ")]
    assert [way.rpartition(" --calibration ")[2] for way in ways] == ["leaves", "self --calibration-samples 32"]
    for way in ways:
        program, *words = shlex.split(way)
        done = here(*words)
        assert program == "secateur" and done.code == 0, done.err
    assert here("jobs", "--json").json[0]["calibration"]["dataset"] == "self"


def test_on_a_terminal_a_job_without_calibration_asks_for_it(
    here: RunHere, live_api: httpx.Client, admin_key: str, model: str, tmp_path: Path
) -> None:
    assert here("datasets", "upload", "leaves", str(write_text(tmp_path / "leaves.txt", words=40_000))).code == 0
    environment = {**os.environ, "SECATEUR_URL": str(live_api.base_url), "SECATEUR_API_KEY": admin_key}
    command = [COMMAND, "submit", model, "--method", "wanda", "--sparsity", "0.5", "--id"]
    for typed, chosen in ((b"\n", "leaves"), (b"self\n", "self")):
        ours, theirs = pty.openpty()
        with subprocess.Popen(command, env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as process:
            os.close(theirs)
            ended = threading.Timer(60, process.kill)
            ended.start()
            shown = b""
            while b"]: " not in shown:
                shown += os.read(ours, 65536)
            os.write(ours, typed)
            assert process.stdout is not None
            job = process.stdout.read().decode().strip()
            ended.cancel()
        os.close(ours)
        assert process.returncode == 0 and b"Calibrate on (leaves, self) [leaves]: " in shown, shown
        assert live_api.get(f"/v1/jobs/{job}").json()["calibration"]["dataset"] == chosen


def test_tasks_without_a_hub_are_refused_at_once_with_the_command_that_helps(
    here: RunHere, job_body: dict[str, Any]
) -> None:
    done = here("submit", job_body["model"], "--method", "magnitude", "--sparsity", "0.5", "--task", "boolq")
    assert done.code == 1 and "`secateur samples --tasks`" in done.err and "trying again" not in done.err


def test_a_name_of_the_hub_without_a_network_is_refused_at_once(here: RunHere) -> None:
    done = here("inspect", "org/name")
    assert done.code == 1 and "the hub cannot be reached for org/name" in done.err and "trying again" not in done.err


def test_an_upload_on_a_terminal_shows_bars(live_api: httpx.Client, admin_key: str, tmp_path: Path) -> None:
    environment = {**os.environ, "SECATEUR_URL": str(live_api.base_url), "SECATEUR_API_KEY": admin_key}
    ours, theirs = pty.openpty()
    command = [COMMAND, "datasets", "upload", "leaves", str(write_text(tmp_path / "leaves.txt")), "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            pass  # how a pty says that the other end is closed
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["name"] == "leaves"
    os.close(ours)
    assert process.returncode == 0 and b"sending leaves.txt" in shown


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
    attempts = here("jobs", "attempts", job)
    assert "worker_1" in attempts.out and "succeeded" in attempts.out
    assert here("jobs", "attempts", job, "--json").json[0]["attempt"] == 1
    changes = here("audit", "--action", "job.submit")
    assert job in changes.out and "key_" in changes.out
    assert here("audit", "--limit", "1", "--json").json[0]["action"]
    assert "no such changes" in here("audit", "--object", "job_none").out


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
