"""Store of the records from which a killed job resumes, in the work folder of one attempt, and their fingerprint.

Tensors are written as soon as they are computed; the state, with the SHA-256 of every file, is written last. A record
is valid only where every hash matches, the state's own included: a process killed at any point leaves the previous
record intact. Files are not fsynced: after a power loss the hashes show the damage, and the job resumes from an intact
record.
"""

import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.models.tensors import load_tensors, write_tensors
from core.engine.resume.kinds import FOLDER, STATE, Kind

JsonObject = dict[str, Any]
"""Object as in JSON."""
VERSIONS = ("torch", "transformers", "accelerate", "peft")
"""Packages whose arithmetic affects a stage's numbers."""
RECORD_VERSION = 4
"""Version of the saved records. It rises when a stage changes a saved name or meaning; older attempts then start over.
"""
_LASTING = "lasting"
_SETTLED_NS = 2 * 10**9
"""Age from which a file's time of change tells it from all later contents: no file system rounds times to more."""
_hashed: dict[tuple[int, int, int, int], str] = {}
"""SHA-256 of each file that this process has read, by its device, inode, size and time of change."""


@dataclass(frozen=True)
class Saved:
    """Intact record: `state` as it was saved at `position`, and tensors that are read on request.

    `folder` is the folder of its kind in the attempt that wrote it; `hashes` are those of every file that belongs to
    it.
    """

    position: int
    state: JsonObject
    folder: Path
    hashes: Mapping[str, str]

    def read(self, name: str) -> dict[str, Tensor]:
        """Load the tensors that were saved under a name."""
        return load_tensors(self.folder / _file(self.position, name))


@dataclass(frozen=True)
class Rejected:
    """Result where records exist and none can be used; `reason` says why."""

    reason: str


class ResumeStore:
    """Records of one attempt, found again under the same fingerprint.

    `previous` are the folders of earlier attempts, the newest first. `fingerprint` names everything that the numbers
    depend on.
    """

    def __init__(self, work: Path, fingerprint: str, previous: Sequence[Path] = ()) -> None:
        self._own = work / FOLDER
        self._earlier = [each / FOLDER for each in previous]
        self._fingerprint = fingerprint
        self._hashes: dict[str, dict[str, str]] = defaultdict(dict)

    def write(self, kind: Kind, position: int, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors that belong to the record at this position, before it is saved."""
        self._write(kind, _file(position, name), tensors)

    def add(self, kind: Kind, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors that belong to every record from now on."""
        self._write(kind, f"{_LASTING}/{name}.safetensors", tensors)

    def save(self, kind: Kind, position: int, tensors: Mapping[str, Mapping[str, Tensor]], state: JsonObject) -> None:
        """Complete the record at this position with further tensors, by name, and its state.

        Then delete the records beyond the number to keep, and folders of records that were not completed.
        """
        for name, content in tensors.items():
            self.write(kind, position, name, content)
        folder = self._folder(kind, position)
        folder.mkdir(parents=True, exist_ok=True)
        own = (f"{_LASTING}/", f"{folder.name}/")
        hashes = {name: digest for name, digest in self._hashes[kind.name].items() if name.startswith(own)}
        _write_record(
            folder / STATE,
            {"fingerprint": self._fingerprint, "position": position, "state": state, "files": hashes},
        )
        self._hashes[kind.name] = hashes
        present = _positions(folder.parent)
        saved = [each for each in present if int(each.name) <= position and (each / STATE).exists()]
        for each in present:
            if each not in saved[: kind.keep]:
                shutil.rmtree(each, ignore_errors=True)

    def save_again(self, kind: Kind, saved: Saved | None, state: JsonObject) -> None:
        """Save a record of this attempt with another state (without one, an empty record at 0); forget later ones."""
        self._hashes[kind.name] = {} if saved is None else dict(saved.hashes)
        self.save(kind, 0 if saved is None else saved.position, {}, state)

    def read(self, kind: Kind, position: int, name: str) -> dict[str, Tensor]:
        """Load tensors that were written for this position, in this attempt or in the adopted one."""
        return load_tensors(self._own / kind.name / _file(position, name))

    def has(self, kind: Kind, position: int, name: str) -> bool:
        """Return True if tensors were written for this position under this name."""
        return _file(position, name) in self._hashes[kind.name]

    def lasting(self, kind: Kind) -> list[Path]:
        """Return the files of tensors that belong to every record, in the order of writing."""
        files = self._hashes[kind.name]
        return [self._own / kind.name / name for name in files if name.startswith(f"{_LASTING}/")]

    def discard(self, kind: Kind, position: int, name: str) -> None:
        """Remove a position's tensors, if there are any, before a record is saved there."""
        file = _file(position, name)
        if self._hashes[kind.name].pop(file, None) is not None:
            written = self._own / kind.name / file
            written.unlink()
            with suppress(OSError):  # the folder still holds other files
                written.parent.rmdir()

    def load(self, kind: Kind) -> Saved | Rejected | None:
        """Return the newest intact record of this attempt, else of the first earlier attempt that has any.

        None where no attempt has a complete record.
        """
        rejected: Rejected | None = None
        for attempt in (self._own, *self._earlier):
            for folder in _positions(attempt / kind.name):
                record = _read_record(folder / STATE)
                if record is None:
                    continue
                if record["fingerprint"] != self._fingerprint:
                    rejected = Rejected(f"{kind.foreign}: {kind.consequence}")
                    continue
                hashes = record["files"]
                if not all(_is_intact(folder.parent / name, digest) for name, digest in hashes.items()):
                    rejected = Rejected(f"{kind.damaged}: {kind.consequence}")
                    continue
                return Saved(record["position"], record["state"], folder.parent, hashes)
        return rejected

    def resume(self, kind: Kind, log: Callable[[str], None]) -> Saved | None:
        """Return what `load` does; None where no record can be used, and `log` is told why if there are any."""
        saved = self.load(kind)
        if isinstance(saved, Rejected):
            log(saved.reason)
            return None
        return saved

    def adopt(self, kind: Kind, saved: Saved) -> None:
        """Make a record this attempt's own, without a copy of its files where the file system has links.

        Used by code that reads the record's files later, or that saves records which include them.
        """
        own = self._own / kind.name
        if saved.folder != own:
            for name in (*saved.hashes, f"{_position(saved.position)}/{STATE}"):
                target = own / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                try:
                    os.link(saved.folder / name, target)
                except OSError:
                    shutil.copyfile(saved.folder / name, target)
        self._hashes[kind.name] = dict(saved.hashes)

    def _write(self, kind: Kind, name: str, tensors: Mapping[str, Tensor]) -> None:
        file = self._own / kind.name / name
        file.parent.mkdir(parents=True, exist_ok=True)
        self._hashes[kind.name][name] = write_tensors(file, tensors)

    def _folder(self, kind: Kind, position: int) -> Path:
        return self._own / kind.name / _position(position)


def _position(position: int) -> str:
    return f"{position:07d}"


def _file(position: int, name: str) -> str:
    return f"{_position(position)}/{name}.safetensors"


def _positions(folder: Path) -> list[Path]:
    """Return the folders of a kind's records, the newest first."""
    return sorted((each for each in folder.glob("[0-9]*")), key=lambda each: int(each.name), reverse=True)


def _write_record(file: Path, record: JsonObject) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps({"sha256": _sha256_of(record), "record": record}))
    partial.replace(file)


def _read_record(file: Path) -> JsonObject | None:
    """Return what `_write_record` wrote; None where it is incomplete."""
    try:
        content = json.loads(file.read_text())
        digest, record = content["sha256"], content["record"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return dict(record) if digest == _sha256_of(record) else None


def _sha256_of(record: JsonObject) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _is_intact(file: Path, digest: str) -> bool:
    """Return True if a file has a SHA-256; it is read again only where it has changed since."""
    try:
        stat = file.stat()
        identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        known = _hashed.get(identity) or file_sha256(file)
    except OSError:
        return False
    if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
        _hashed[identity] = known
    return known == digest


@dataclass(frozen=True)
class Runtime:
    """Arithmetic of this process: kind of device, threads, dtype of the forwards, versions of packages."""

    device: str
    threads: int
    dtype: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> "Runtime":
        """Return the runtime of work on a device with this process's present settings."""
        return cls(device.type, torch.get_num_threads(), str(dtype), versions())


@cache
def versions() -> dict[str, str]:
    """Return the version of each of `VERSIONS`, cached: reading them takes longer than a block of a small model."""
    return {name: version(name) for name in VERSIONS}


def fingerprint(stage: str, facts: Mapping[str, Any], runtime: Runtime) -> str:
    """Return a hash of a stage's name, its facts as JSON, the runtime, and the version of records."""
    everything = {"stage": stage, "facts": facts, "runtime": asdict(runtime), "records": RECORD_VERSION}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def tensors_sha256(*tensors: Tensor) -> str:
    """Return the SHA-256 of the tensors' bytes, one after the other."""
    digest = hashlib.sha256()
    for each in tensors:
        digest.update(each.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file; raises OSError where it cannot be read."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
