"""Resumable state between blocks: finished blocks' tensors and the hidden states, in a job's work folder.

Every file is written as soon as its tensors are there, the state file with the SHA-256 of all of them last, and a
boundary counts only if every hash matches: a process killed at any point leaves either the newest boundary or the one
before. Files are not fsynced: after a power loss the hashes show what is damaged, and the job resumes from what is
intact.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from core.engine.models.tensors import load_tensors, write_tensors

STATE = "state.json"
BLOCKS = "blocks"


class Boundaries:
    """The work folder of one attempt; `fingerprint` names everything the numbers depend on."""

    def __init__(self, work: Path, fingerprint: str) -> None:
        self.work = work
        self.fingerprint = fingerprint
        self._block_hashes: dict[str, str] = {}
        self._stream_hashes: dict[str, str] = {}
        (work / BLOCKS).mkdir(parents=True, exist_ok=True)

    def block_file(self, name: str) -> Path:
        return self.work / BLOCKS / f"{name}.safetensors"

    def block_files(self) -> list[Path]:
        """Return every file of block tensors written so far, in the order they were written."""
        return [self.work / name for name in self._block_hashes]

    def write_block(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write a finished block's tensors, under their own names."""
        file = self.block_file(name)
        self._block_hashes[f"{BLOCKS}/{file.name}"] = write_tensors(file, tensors)

    def write_activation(self, done: int, name: str, tensor: Tensor) -> None:
        """Write one micro-batch of a stream as it stands after `done` blocks."""
        folder = self._folder(done)
        folder.mkdir(exist_ok=True)
        file = folder / f"{name}.safetensors"
        self._stream_hashes[f"{folder.name}/{file.name}"] = write_tensors(file, {"hidden": tensor})

    def read_activation(self, done: int, name: str) -> Tensor:
        return load_tensors(self._folder(done) / f"{name}.safetensors")["hidden"]

    def complete(self, done: int, state: dict[str, Any]) -> None:
        """Write the state of the boundary after `done` blocks, which completes it, and delete the one two before."""
        folder = self._folder(done)
        folder.mkdir(exist_ok=True)
        current = {name: digest for name, digest in self._stream_hashes.items() if name.startswith(f"{folder.name}/")}
        record = {
            "fingerprint": self.fingerprint,
            "done": done,
            "state": state,
            "files": self._block_hashes | current,
        }
        partial = folder / f"{STATE}.partial"
        partial.write_text(json.dumps(record))
        partial.replace(folder / STATE)
        shutil.rmtree(self._folder(done - 2), ignore_errors=True)
        self._stream_hashes = current

    def forget(self, done: int) -> None:
        """Remove what was written after `done` blocks, for a pass that is not resumed."""
        shutil.rmtree(self._folder(done), ignore_errors=True)

    def resume(self, previous: Path | None) -> tuple[int, dict[str, Any]] | str | None:
        """Carry the newest intact boundary of this or an earlier attempt's folder into this one.

        Returns the number of blocks done and the state saved with them; None if there is nothing to resume; a sentence
        that says why where there is something but it does not fit.
        """
        reason: str | None = None
        for source in [self.work, *([previous] if previous else [])]:
            for folder in sorted(source.glob("boundary-*"), reverse=True):
                record = read_state(folder / STATE)
                if record is None:
                    continue
                if record["fingerprint"] != self.fingerprint:
                    reason = "the earlier attempt ran with other settings (device, threads, dtype or versions)"
                    continue
                if any(file_sha256(source / name) != digest for name, digest in record["files"].items()):
                    reason = "the earlier attempt's files are damaged"
                    continue
                self._adopt(source, record["files"])
                return int(record["done"]), dict(record["state"])
        return f"{reason}: the job starts over" if reason else None

    def _adopt(self, source: Path, files: dict[str, str]) -> None:
        for name, digest in files.items():
            if source != self.work:
                target = self.work / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                try:
                    os.link(source / name, target)
                except OSError:
                    shutil.copyfile(source / name, target)
            kept = self._block_hashes if name.startswith(f"{BLOCKS}/") else self._stream_hashes
            kept[name] = digest

    def _folder(self, done: int) -> Path:
        return self.work / f"boundary-{done:05d}"


def file_sha256(file: Path) -> str | None:
    """Return the SHA-256 of a file, None where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def read_state(file: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None where there is none."""
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
