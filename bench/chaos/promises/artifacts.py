"""Artifacts: stored as listed, downloaded as listed, and models that load."""

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from bench.chaos.observation import NoAnswer, Observation, SeenJob
from bench.chaos.promises.promise import Broken, of_entries, of_jobs, promise

MANIFEST = "secateur.json"
RELOADED = 4
"""Artifacts that are opened in each look, chosen at random."""
RELOAD = (sys.executable, "-m", "bench.chaos.reload")
"""Command that opens them, in a process of its own."""
_FETCHED = 5
"""Files that are downloaded through the API in each look."""
_RELOAD_SECONDS = 300


@promise("manifest", "first")
def manifests_are_complete(seen: Observation) -> Iterator[Broken]:
    """The manifest comes last: a folder of the store that has one has every file it names, whoever was killed."""
    objects = seen.bucket.objects()
    for key in objects:
        prefix, _, name = key.rpartition("/")
        if name != MANIFEST:
            continue
        for path, facts in json.loads(seen.bucket.content(key))["files"].items():
            stored = objects.get(f"{prefix}/{path}")
            if stored != facts["bytes"]:
                text = f"{key} names {path} of {facts['bytes']} bytes, the store has {stored}"
                yield text, prefix.partition("/")[0]


@promise("artifacts")
def listed_files_are_stored(seen: Observation) -> Iterator[Broken]:
    """Every file that is listed lies in the store below the attempt that made it, of its size and SHA-256, and is what
    the API sends.
    """
    objects = seen.bucket.objects()
    listed = [(found, file) for found in seen.jobs.values() for file in found.files]
    for found, file in listed:
        key = found.key(file)
        if key not in objects:
            others = [each for each in objects if each.startswith(f"{found.id}/") and each.endswith(file["path"])]
            yield f"{key} is listed, and not in the store; there is {others}", found.id
            continue
        content = seen.bucket.content(key)
        if (len(content), hashlib.sha256(content).hexdigest()) != (file["bytes"], file["sha256"]):
            yield f"{key} has {len(content)} bytes that are not those listed", found.id
    for found, file in random.sample(listed, min(_FETCHED, len(listed))):
        try:
            answer = seen.reader.get(found.team, f"/v1/jobs/{found.id}/artifacts/{quote(file['path'])}")
        except NoAnswer as error:
            yield f"{file['path']} is not sent: {error}", found.id
            continue
        if answer.status_code != 200 or hashlib.sha256(answer.content).hexdigest() != file["sha256"]:
            text = f"{file['path']} is sent as {answer.status_code}, {len(answer.content)} bytes that are not its own"
            yield text, found.id


@of_jobs("artifacts")
def a_success_has_an_artifact(found: SeenJob) -> Iterator[str]:
    """A job that succeeded lists a whole model, with its manifest, which names the very same files, and a report."""
    if found.status != "succeeded":
        return
    names = {file["path"] for file in found.files}
    if not {MANIFEST, "README.md", "config.json"} <= names or not any(each.endswith(".safetensors") for each in names):
        yield f"succeeded with {sorted(names)}"
    if found.report is None:
        yield "succeeded without a report"


@of_entries("downloaded", "artifacts")
def downloads_are_what_was_listed(entry: dict[str, Any]) -> Iterator[str]:
    """What a client downloaded, in however many parts, is what the list said."""
    if entry["sha256"] != entry["listed"]:
        yield f"a client got {entry['path']} as other bytes than listed"


@promise("reload")
def masks_are_zero(seen: Observation) -> Iterator[Broken]:
    """An artifact loads with `from_pretrained` in a fresh process, computes finite logits, and every pruned layer has
    the zeros that the report says.
    """
    loadable = [
        found
        for found in seen.jobs.values()
        if found.status == "succeeded" and found.job["output"]["format"] == "dense" and found.files
    ]
    chosen = random.sample(loadable, min(RELOADED, len(loadable)))
    if not chosen:
        return
    with TemporaryDirectory(prefix="secateur-chaos-") as place:
        folders = [_fetched(seen, found, Path(place) / found.id) for found in chosen]
        asked = [*RELOAD, *map(str, folders)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_RELOAD_SECONDS, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != len(chosen):
        yield f"the process that opens artifacts ended with {done.returncode}: {done.stderr[-800:]}", None
        return
    for found, line in zip(chosen, lines, strict=True):
        opened = json.loads(line)
        if opened.get("error") is not None or not opened["finite"]:
            yield f"the artifact does not load to finite logits: {opened}", found.id
            continue
        zeros = opened["zeros"]
        for row in (found.report or {}).get("layers", []):
            if "zeros" in row and zeros.get(row["name"], row["zeros"]) < row["zeros"]:
                yield f"{row['name']} has {zeros[row['name']]} zeros, the report says {row['zeros']}", found.id


def _fetched(seen: Observation, found: SeenJob, folder: Path) -> Path:
    """Return a folder with those files of the artifact that are stored."""
    objects = seen.bucket.objects()
    for file in found.files:
        if found.key(file) in objects:
            target = folder / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(seen.bucket.content(found.key(file)))
    return folder
