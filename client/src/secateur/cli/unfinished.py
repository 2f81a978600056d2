"""Record of an unfinished `secateur prune` in its output folder, with which the same command continues."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from secateur.downloads import MANIFEST
from secateur.operations.calls import new_key
from secateur_wire.base import JsonObject
from secateur_wire.plans import Goal

RECORD: Final = ".secateur-prune.json"


class PruneRequest(BaseModel):
    """Options of `secateur prune` that decide the result. `server` is the URL, or the home of the embedded server."""

    model_config = ConfigDict(frozen=True)

    server: str
    model: str
    goal: Goal
    amount: float | None = None
    keep_quality: float | None = None
    pattern: str | None = None
    calibration: str | None = None


class PruneProgress(BaseModel):
    """State of the command: each field is None until its step is done.

    `model` and `calibration` are their names on the server, `body` is the planned job, and `key` the idempotency key of
    its submit.
    """

    request: PruneRequest
    key: str = Field(default_factory=new_key)
    model: str | None = None
    calibration: str | None = None
    body: JsonObject | None = None
    job: str | None = None


class OutputFolder:
    """Output folder of a pruned model, for one command at a time, with the record of the finished steps."""

    def __init__(self, path: Path, unfinished: PruneProgress) -> None:
        self.path = path
        self.unfinished = unfinished

    def note(self, **done: Any) -> None:
        """Record finished steps on disk, so that they survive any end of this process."""
        self.unfinished = self.unfinished.model_copy(update=done)
        new_file = self.path / f"{RECORD}.new"
        with open(new_file, "w", encoding="utf-8") as file:
            file.write(self.unfinished.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        new_file.replace(self.path / RECORD)

    def forget(self) -> None:
        """Remove the record: the command has succeeded, or failed finally."""
        for name in (RECORD, f"{RECORD}.new"):
            (self.path / name).unlink(missing_ok=True)


@contextlib.contextmanager
def output_folder(path: Path, request: PruneRequest) -> Iterator[OutputFolder]:
    """Yield the folder, created if it is missing, with the record of the same command if it was interrupted.

    A folder that was created for the command, and is empty at its end, is removed. Raises typer.BadParameter if the
    folder has other contents, or if another command writes to it.
    """
    is_new = not path.exists()
    if not is_new and not path.is_dir():
        raise typer.BadParameter(f"-o {path}: that is a file; name a folder, which is made if missing")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(
            f"-o {path}: that folder cannot be made ({error.strerror}); name one where you may write"
        ) from None
    with _folder_lock(path):
        unfinished = _read(path, request)
        try:
            yield OutputFolder(path, unfinished or PruneProgress(request=request))
        finally:
            if is_new or unfinished is not None:
                with contextlib.suppress(OSError):  # It has files, which stay.
                    path.rmdir()


def _read(path: Path, request: PruneRequest) -> PruneProgress | None:
    if not (path / RECORD).exists():
        contents = sorted(each.name for each in path.iterdir() if each.name != f"{RECORD}.new")
        if MANIFEST in contents:
            raise typer.BadParameter(f"-o {path}: a pruned model is there already; name another folder, or remove it")
        if contents:
            raise typer.BadParameter(
                f"-o {path}: the folder is not empty ({', '.join(contents[:3])}{' …' if len(contents) > 3 else ''}); "
                "name a new folder, or an empty one"
            )
        return None
    try:
        unfinished = PruneProgress.model_validate_json((path / RECORD).read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise typer.BadParameter(f"-o {path}: its {RECORD} cannot be read; name another folder, or remove it") from None
    if unfinished.request != request:
        differing = [
            f"{name}: {getattr(unfinished.request, name)} there, {getattr(request, name)} here"
            for name in PruneRequest.model_fields
            if getattr(unfinished.request, name) != getattr(request, name)
        ]
        raise typer.BadParameter(
            f"-o {path}: another prune is unfinished there ({'; '.join(differing)}); give them to go on with it, "
            "name another folder, or remove this one"
        )
    return unfinished


@contextlib.contextmanager
def _folder_lock(path: Path) -> Iterator[None]:
    """Hold the folder's lock, which the kernel releases at any end of the process; only POSIX has one."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise typer.BadParameter(
                f"-o {path}: another `secateur prune` writes into that folder; wait for it, or name another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)
