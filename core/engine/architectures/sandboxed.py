"""Checks and descriptions of model folders that strangers wrote: a child process reads them.

The child opens only the files that its parent lists (`core.sandbox`). Its answer is small, however large the headers
are. A few kilobytes, which take less time than a child, are read here.
"""

import struct
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import jinja2.debug  # noqa: F401 - Jinja loads it for its first error

from core.engine.architectures.describe import describe_source
from core.engine.architectures.description import Source, sources, stored_description
from core.engine.architectures.folder import read_config
from core.engine.checkpoints.companions import TEMPLATE_FOLDER, check_companion, check_templates
from core.engine.checkpoints.files import CHECKED, CONFIG_FILE, INDEX_FILE, SINGLE_FILE, is_weight_file
from core.engine.checkpoints.safetensors_header import read_header
from core.sandbox import run_sandboxed
from core.untrusted_json import parse_json

Slot = Callable[[], AbstractContextManager[None]]
"""Function that returns a context in which the memory of one child may be used."""

_READ_HERE_BYTES: Final = 2**15
_SIZE: Final = 64 * 2**20
"""Bytes that the time limit of a child is for: the headers of the largest models."""


def describe_sandboxed(folder: Path, slot: Slot = nullcontext) -> Source:
    """Describe a folder as `describe_source` does, whoever wrote it; raises its errors, and UnusableModel if too large.

    A child, where one is needed, runs in a slot.
    """
    return sources.validate_python(_read(folder, _metadata_bytes(folder), slot)["description"])


def weight_names(folder: Path, slot: Slot = nullcontext) -> list[str]:
    """Return the valid file names in a folder's index; `describe_sandboxed` reports faults of the index."""
    if not (folder / INDEX_FILE).is_file():
        return [SINGLE_FILE]
    names: list[str] = _read(folder, (folder / INDEX_FILE).stat().st_size, slot, index=True)["names"]
    return names


def check_sandboxed(file: Path, size: int) -> None:
    """Check the `size` bytes of metadata in one file of a model, in a folder of its own; raises UnusableModel kinds."""
    _read(file.parent, size, nullcontext, file=file.name)


def prepare(task: Mapping[str, Any]) -> None:
    """Have Jinja load what it would load on its first use."""
    check_templates("{% for each in [1] %}{{ each }}{% endfor %}", "")


def measure_here(folder: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return a folder's description, or the names in its index, or check one file; raises UnusableModel kinds."""
    if task.get("index"):
        return {"names": _names(folder / INDEX_FILE)}
    if (name := task.get("file")) is None:
        return {"description": stored_description(describe_source(folder))}
    if is_weight_file(name):
        read_header(folder / name)
    elif name == CONFIG_FILE:
        read_config(folder)
    else:
        check_companion(folder / name)
    return {}


def _read(folder: Path, size: int, slot: Slot, **task: Any) -> dict[str, Any]:
    if size <= _READ_HERE_BYTES:
        return measure_here(folder, task)
    with slot():
        return run_sandboxed("model", folder, folder.name, _SIZE, **task)


def _metadata_bytes(folder: Path) -> int:
    """Return the bytes of a folder that a description reads, as their files claim them; more than enough suffice."""
    size = sum((folder / name).stat().st_size for name in (*CHECKED, INDEX_FILE) if (folder / name).is_file())
    size += sum(each.stat().st_size for each in (folder / TEMPLATE_FOLDER).glob("*.jinja"))
    for file in folder.rglob("*.safetensors"):
        if size > _READ_HERE_BYTES:
            break
        if file.is_file():
            with file.open("rb") as stream:
                size += sum(struct.unpack("<Q", stream.read(8).ljust(8, b"\0")))
    return size


def _names(index: Path) -> list[str]:
    try:
        names = parse_json(index.read_bytes())["weight_map"].values()
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted({name for name in names if isinstance(name, str) and is_weight_file(name)})
