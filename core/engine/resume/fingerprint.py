"""Fingerprint of a stage: a hash of everything its numbers depend on: the job's choices and machine arithmetic."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VERSIONS = ("torch", "transformers", "accelerate", "peft")
"""Packages whose arithmetic affects a stage's numbers."""
RECORD_VERSION = 4
"""Version of the saved records. It rises when a stage changes a saved name or meaning; older attempts then start over.
"""


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
