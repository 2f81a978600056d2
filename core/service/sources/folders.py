"""Folders that models and datasets may be registered from, and the hash of a folder's content."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from core.settings import Settings
from secateur_wire.errors import InvalidRequest, PathEscapes, UnusableDataset, UnusableModel

_CHUNK_BYTES = 16 * 2**20


def allowed_roots(settings: Settings) -> list[Path]:
    """Return the folders below which models and datasets are registered in place: those of home, and the operator's."""
    return [root.resolve() for root in (settings.models_root, settings.datasets_root, *settings.allowed_roots)]


def is_allowed(settings: Settings, real: Path) -> bool:
    """Return whether a real path lies below one of the allowed roots."""
    return any(root in real.parents for root in allowed_roots(settings))


def allowed_path(settings: Settings, path: str) -> Path:
    """Return the real path of a file or folder to register.

    Raises InvalidRequest where the path is not absolute. Raises PathEscapes where the path, after following links, is
    outside the allowed roots.
    """
    requested = Path(path)
    if not requested.is_absolute():
        raise InvalidRequest(f"path {path!r} must be absolute", param="path")
    try:
        real = requested.resolve()
    except (OSError, RuntimeError) as error:
        raise InvalidRequest(f"path {path!r} cannot be followed", param="path") from error
    if not is_allowed(settings, real):
        raise PathEscapes(
            f"path {path!r} is outside the folders that this server registers from: its operator can add a folder to "
            "SECATEUR_ALLOWED_ROOTS, or take the path into the server's home, by `secateur models add` or "
            "`secateur datasets add` on the server's machine",
            param="path",
        )
    return real


def content_hash(folder: Path, *, watch: Callable[[], None] | None = None) -> str:
    """Return `sha256:` and the hash of a folder's content.

    The hash is that of the sorted lines `<sha256 of file> <relative name>` (as `sha256sum` prints them) of all files.
    `watch` is called between pieces, because a large model takes minutes; it may raise.

    Raises PathEscapes where a link leads out of the folder, UnusableModel where an entry is not a regular file.
    """
    return content_hash_of(content_digests(folder, watch=watch))


def content_digests(folder: Path, *, watch: Callable[[], None] | None = None) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder by its relative name; `watch` and errors as in `content_hash`."""
    return {file.relative_to(folder).as_posix(): file_hash(file, watch=watch) for file in _files(folder)}


def content_hash_of(digests: Mapping[str, str]) -> str:
    """Return the `content_hash` of a folder that holds these files, from the SHA-256 of each by its name."""
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return "sha256:" + hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def file_hash(file: Path, *, watch: Callable[[], None] | None = None) -> str:
    """Return the SHA-256 of a file; `watch` as in `content_hash`."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            if watch is not None:
                watch()
    return digest.hexdigest()


def dataset_hash(place: Path, *, watch: Callable[[], None] | None = None) -> str:
    """Return the SHA-256 of a dataset's file, or of a folder's content; `watch` as in `content_hash`.

    Raises PathEscapes where a link leads out of the folder, UnusableDataset where the path is neither.
    """
    if not place.is_dir():
        if not place.is_file():
            raise UnusableDataset(f"{place.name} is neither a file nor a folder", param="path")
        return file_hash(place, watch=watch)
    try:
        return content_hash(place, watch=watch).removeprefix("sha256:")
    except PathEscapes:
        raise
    except UnusableModel as error:
        raise UnusableDataset(error.message, param="path") from error


def _files(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    for directory, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            entry = Path(directory, name)
            if not entry.resolve().is_relative_to(root):
                raise PathEscapes(f"{entry.relative_to(folder)} is a link to a place outside the folder", param="path")
            if entry.is_symlink() and entry.is_dir():
                raise UnusableModel(f"{entry.relative_to(folder)} is a link to a folder", param="path")
        for name in names:
            entry = Path(directory, name)
            if not entry.is_file():
                raise UnusableModel(f"{entry.relative_to(folder)} is not a regular file", param="path")
            yield entry
