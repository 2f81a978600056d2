"""Artifacts: stored as listed, downloaded as listed, and models that load."""

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from bench.chaos.observation import NoAnswer, Observation, SeenJob, Violation

MANIFEST = "secateur.json"
RELOADED = 4
"""Artifacts that are opened in each look, chosen at random."""
RELOAD = (sys.executable, "-m", "bench.chaos.reload")
"""Command that opens them, in a process of its own."""
_FETCHED = 5
"""Files that are downloaded through the API in each look."""
_RELOAD_SECONDS = 300


def manifests_are_complete(seen: Observation) -> Iterator[Violation]:
    """The manifest comes last: a folder of the store that has one has every file it names, whoever was killed."""
    objects = seen.bucket.objects()
    for key in objects:
        prefix, _, name = key.rpartition("/")
        if name != MANIFEST:
            continue
        files = json.loads(seen.bucket.content(key))["files"]
        for path, facts in files.items():
            stored = objects.get(f"{prefix}/{path}")
            if stored != facts["bytes"]:
                text = f"{key} names {path} of {facts['bytes']} bytes, the store has {stored}"
                yield Violation("manifest", text, prefix.partition("/")[0])


def listed_files_are_stored(seen: Observation) -> Iterator[Violation]:
    """Every file that is listed lies in the store below the attempt that made it, of its size and SHA-256, and is what
    the API sends.
    """
    objects = seen.bucket.objects()
    for found in seen.jobs.values():
        for file in found.files:
            key = f"{found.id}/attempt-{found.kept_attempt}/{file['path']}"
            if key not in objects:
                others = [each for each in objects if each.startswith(f"{found.id}/") and each.endswith(file["path"])]
                yield Violation("artifacts", f"{key} is listed, and not in the store; there is {others}", found.id)
                continue
            content = seen.bucket.content(key)
            if (len(content), hashlib.sha256(content).hexdigest()) != (file["bytes"], file["sha256"]):
                yield Violation("artifacts", f"{key} has {len(content)} bytes that are not those listed", found.id)
    yield from _sent_otherwise(seen)


def _sent_otherwise(seen: Observation) -> Iterator[Violation]:
    listed = [(found, file) for found in seen.jobs.values() for file in found.files]
    for found, file in random.sample(listed, min(_FETCHED, len(listed))):
        try:
            answer = seen.reader.get(found.team, f"/v1/jobs/{found.id}/artifacts/{quote(file['path'])}")
        except NoAnswer as error:
            yield Violation("artifacts", f"{file['path']} is not sent: {error}", found.id)
            continue
        if answer.status_code != 200 or hashlib.sha256(answer.content).hexdigest() != file["sha256"]:
            text = f"{file['path']} is sent as {answer.status_code}, {len(answer.content)} bytes that are not its own"
            yield Violation("artifacts", text, found.id)


def a_success_has_an_artifact(seen: Observation) -> Iterator[Violation]:
    """A job that succeeded lists a whole model, with its manifest, which names the very same files, and a report."""
    for found in seen.jobs.values():
        if found.job["status"] != "succeeded":
            continue
        names = {file["path"] for file in found.files}
        missing = {MANIFEST, "README.md", "config.json"} - names
        if missing or not any(name.endswith(".safetensors") for name in names):
            yield Violation("artifacts", f"succeeded with {sorted(names)}", found.id)
        if found.report is None:
            yield Violation("artifacts", "succeeded without a report", found.id)


def downloads_are_what_was_listed(seen: Observation) -> Iterator[Violation]:
    """What a client downloaded, in however many parts, is what the list said."""
    for entry in seen.noted("downloaded"):
        if entry["sha256"] != entry["listed"]:
            yield Violation("artifacts", f"a client got {entry['path']} as other bytes than listed", entry["job"])


def masks_are_zero(seen: Observation) -> Iterator[Violation]:
    """An artifact loads with `from_pretrained` in a fresh process, computes finite logits, and every pruned layer has
    the zeros that the report says.
    """
    loadable = [found for found in seen.jobs.values() if found.job["status"] == "succeeded" and _is_plain(found)]
    chosen = random.sample(loadable, min(RELOADED, len(loadable)))
    if not chosen:
        return
    with TemporaryDirectory(prefix="secateur-chaos-") as place:
        folders = {found.id: _fetched(seen, found, Path(place) / found.id) for found in chosen}
        asked = [*RELOAD, *map(str, folders.values())]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_RELOAD_SECONDS, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != len(chosen):
        yield Violation(
            "reload", f"the process that opens artifacts ended with {done.returncode}: {done.stderr[-800:]}"
        )
        return
    for found, line in zip(chosen, lines, strict=True):
        yield from _differs(found, json.loads(line))


def _differs(found: SeenJob, opened: dict[str, object]) -> Iterator[Violation]:
    if opened.get("error") is not None or not opened["finite"]:
        yield Violation("reload", f"the artifact does not load to finite logits: {opened}", found.id)
        return
    zeros = opened["zeros"]
    assert isinstance(zeros, dict)
    for row in (found.report or {}).get("layers", []):
        if "zeros" in row and row["name"] in zeros and zeros[row["name"]] < row["zeros"]:
            text = f"{row['name']} has {zeros[row['name']]} zeros, the report says {row['zeros']}"
            yield Violation("reload", text, found.id)


def _is_plain(found: SeenJob) -> bool:
    return bool(found.job["output"]["format"] == "dense" and found.files)


def _fetched(seen: Observation, found: SeenJob, folder: Path) -> Path:
    objects = seen.bucket.objects()
    for file in found.files:
        key = f"{found.id}/attempt-{found.kept_attempt}/{file['path']}"
        if key in objects:
            target = folder / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(seen.bucket.content(key))
    return folder
