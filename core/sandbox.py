"""Sandboxed reading of what strangers wrote: texts, images, model folders, and GGUF headers.

A Parquet file of 300 bytes can unpack to 20 GB, decoders of Parquet and images are C++ code that was not written for
hostile files, and the headers of a model's weights are parsed into many times their bytes. Damage to memory or to the
process must not reach the API. So a child process reads them, with little memory and time and at low priority. It loads
its libraries, and then can open no file, start no process, and reach no network and no other process
(`core.seclusion`). It requests pieces of the files that its parent lists, over a pipe. The runner reads texts, images
and models without this sandbox, because it is such a process for a whole job; GGUF headers are read here in any case.
"""

import fnmatch
import importlib
import io
import json
import math
import os
import resource
import stat
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, ClassVar, Final, Literal

from core.seclusion import seal
from secateur_wire.errors import UnusableDataset, UnusableModel

Reader = Literal["texts", "images", "model", "gguf"]
MEMORY_BYTES: Final[dict[Reader, int]] = {"texts": 2**29, "images": 2**29, "model": 2**29, "gguf": 2**30}
"""Memory in bytes that the child may use beyond its memory after loading its libraries."""
CHECK_BYTES: Final = 2**29 + 2**27
"""Memory in bytes that a check of a text, images or a model may take, libraries included."""
SECONDS: Final = 60.0
BYTES_PER_SECOND: Final = 5_000_000
"""Slowest tolerated rate of reading once `SECONDS` have passed."""

_REQUEST: Final = struct.Struct("<qqq")
"""Number of a file, start and length in bytes; `_RESULT` in place of the number announces the result of that length."""
_LENGTH: Final = struct.Struct("<q")
_RESULT: Final = -1
_BUFFER_BYTES: Final = 2**20
_NICE: Final = 10

_MODULES: Final[dict[Reader, str]] = {
    "texts": "core.engine.datasets.text_files",
    "images": "core.engine.datasets.image_codec",
    "model": "core.engine.architectures.sandboxed",
    "gguf": "core.engine.models.gguf_header",
}
"""Modules of the readers; the child loads one of them.

The module's `prepare` loads everything that the task needs, because nothing can be loaded later. `measure_here` takes
the open file or the folder, and the task. It returns the measurements as JSON, or raises the reader's error.
"""
_LOADED_LATER: Final = (
    "heapq",
    *(f"encodings.{name}" for name in ("ascii", "cp1252", "latin_1", "unicode_escape", "utf_8_sig")),
    *(f"encodings.utf_{bits}{order}" for bits in (16, 32) for order in ("", "_le", "_be")),
)
"""Modules that Python's own library would load at their first use."""
_RESULT_BYTES: Final[dict[Reader, int]] = {"texts": 2**20, "images": 2**26, "model": 2**24, "gguf": 2**29}
"""Largest result in bytes that is taken from a child."""
_ERROR_TYPES: Final[tuple[type[UnusableDataset | UnusableModel], ...]] = (UnusableDataset, UnusableModel)
_ERRORS: Final = {error.code: error for each in _ERROR_TYPES for error in (each, *each.__subclasses__())}
_UNREAD: Final[dict[Reader, type[UnusableDataset | UnusableModel]]] = {
    "texts": UnusableDataset,
    "images": UnusableDataset,
    "model": UnusableModel,
    "gguf": UnusableModel,
}
"""Errors for a child that ends without a result."""


def run_sandboxed(reader: Reader, source: BinaryIO | Path, name: str, size: int, **options: Any) -> dict[str, Any]:
    """Return the measurements of an open file, or of a folder; raises the reader's error.

    `size` in bytes is that of the file, and determines the time limit; `options` is passed on to the reader.
    """
    passed = {variable: os.environ[variable] for variable in ("PATH", "PYTHONPATH") if variable in os.environ}
    environment = {**passed, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    seconds = SECONDS + size / BYTES_PER_SECOND
    listed = list(_listed(source)) if isinstance(source, Path) else None
    files = [source] if listed is None or not isinstance(source, Path) else [source / path for path, *_ in listed]
    task = {"reader": reader, "name": name, "size": size, "listed": listed, "seconds": seconds, **options}
    with subprocess.Popen(
        [sys.executable, "-m", "core.sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=Path(__file__).parents[1],
    ) as child:
        clock = threading.Timer(seconds, child.kill)
        clock.daemon = True
        clock.start()
        try:
            result = _serve(child, files, task)
        except BrokenPipeError:
            result = None
        finally:
            clock.cancel()
            child.kill()
            with suppress(BrokenPipeError):  # nobody needs the data that the child did not read
                child.communicate()
    unread = _UNREAD[reader]
    if result is None:
        raise unread(
            f"{name} could not be read within the time and memory allowed for a file of its size", param="path"
        )
    if "message" in result:
        raise _ERRORS.get(result["code"], unread)(result["message"], param=result["param"])
    return result


def _listed(folder: Path) -> Iterator[tuple[str, int | None, bool]]:
    """Yield the path, size in bytes (None: a folder) and whether it is truly inside, of all that is in a folder."""
    root = folder.resolve()
    for each in sorted(folder.rglob("*")):
        if each.is_dir() or each.is_file():
            size = None if each.is_dir() else each.stat().st_size
            is_inside = not each.is_symlink() or each.resolve().is_relative_to(root)
            yield each.relative_to(folder).as_posix(), size, is_inside


def _serve(child: subprocess.Popen[bytes], files: list[Any], task: dict[str, Any]) -> dict[str, Any] | None:
    """Send the child the pieces it requests until it has a result; None where it ends without a result."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(json.dumps(task).encode() + b"\n")
    child.stdin.flush()
    while True:
        request = child.stdout.read(_REQUEST.size)
        if len(request) < _REQUEST.size:
            return None
        number, start, length = _REQUEST.unpack(request)
        if number == _RESULT:
            text = child.stdout.read(min(max(length, 0), _RESULT_BYTES[task["reader"]]))
            try:
                result = json.loads(text)
            except (ValueError, RecursionError):
                return None
            return result if isinstance(result, dict) else None
        if not 0 <= number < len(files) or start < 0 or length < 0:
            return None
        piece = _piece(files[number], start, min(length, _BUFFER_BYTES))
        child.stdin.write(_LENGTH.pack(len(piece)) + piece)
        child.stdin.flush()


def _piece(file: BinaryIO | Path, start: int, length: int) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return _piece(stream, start, length)
    file.seek(start)
    return file.read(length)


class _ParentFile(io.RawIOBase):
    """File as the child sees it: each read is a request to the parent."""

    def __init__(self, number: int, size: int) -> None:
        self._number = number
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(start + offset, 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        asking, answers = sys.stdout.buffer, sys.stdin.buffer
        asking.write(_REQUEST.pack(self._number, self._place, len(buffer)))
        asking.flush()
        (length,) = _LENGTH.unpack(answers.read(_LENGTH.size))
        buffer[:length] = answers.read(length)
        self._place += length
        return int(length)


def _open(number: int, size: int) -> BinaryIO:
    return io.BufferedReader(_ParentFile(number, size), max(1, min(size, _BUFFER_BYTES)))


class ListedPath(PosixPath):
    """Path in the one folder of a child, as its parent lists it: relative, and below the folder's name.

    A link out of the folder can be read, and resolves to a path elsewhere.
    """

    _entries: ClassVar[dict[str, tuple[int, int | None, bool]]] = {}
    """Number, size in bytes (None: a folder), and whether it is truly inside, by path."""
    _children: ClassVar[dict[str, list[str]]] = defaultdict(list)

    @classmethod
    def of_task(cls, name: str, listed: list[tuple[str, int | None, bool]]) -> "ListedPath":
        """Return the folder, whose content is then known; call it once."""
        cls._entries[name] = (_RESULT, None, True)
        for number, (path, size, is_inside) in enumerate(listed):
            place = f"{name}/{path}"
            cls._entries[place] = (number, size, is_inside)
            cls._children[place.rpartition("/")[0]].append(place)
        return cls(name)

    @property
    def _place(self) -> str:
        return os.path.normpath(str(self))

    def is_dir(self, **_: Any) -> bool:
        return self._entries.get(self._place, (0, 0, True))[1] is None

    def is_file(self, **_: Any) -> bool:
        return self._entries.get(self._place, (0, None, True))[1] is not None

    def exists(self, **_: Any) -> bool:
        return self._place in self._entries

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if (entry := self._entries.get(self._place)) is None:
            raise FileNotFoundError(str(self))
        mode = stat.S_IFDIR if entry[1] is None else stat.S_IFREG
        return os.stat_result((mode, 0, 0, 1, 0, 0, entry[1] or 0, 0, 0, 0))

    def open(self, *_: Any, **__: Any) -> Any:
        number, size, _inside = self._entries.get(self._place, (_RESULT, None, True))
        if size is None:
            raise FileNotFoundError(str(self))
        return _open(number, size)

    def read_bytes(self) -> bytes:
        with self.open() as stream:
            return bytes(stream.read())

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    def iterdir(self) -> Iterator["ListedPath"]:  # type: ignore[override]  # newer Pythons differ
        return (type(self)(place) for place in self._children.get(self._place, ()))

    def glob(self, pattern: str, **_: Any) -> Iterator["ListedPath"]:  # type: ignore[override]
        return (each for each in self.iterdir() if fnmatch.fnmatchcase(each.name, pattern))

    def rglob(self, pattern: str, **_: Any) -> Iterator["ListedPath"]:  # type: ignore[override]
        for each in self.iterdir():
            if fnmatch.fnmatchcase(each.name, pattern):
                yield each
            yield from each.rglob(pattern)

    def resolve(self, strict: bool = False) -> "ListedPath":
        is_inside = self._entries.get(self._place, (0, 0, True))[2]
        return type(self)(self._place if is_inside else "/elsewhere")


def serve_parent() -> None:
    """Run the child: load what one task needs, close everything else off, measure, and send the result."""
    asking, answers = sys.stdout.buffer, sys.stdin.buffer
    task = json.loads(answers.readline())
    os.nice(_NICE)
    reader = importlib.import_module(_MODULES[task["reader"]])
    reader.prepare(task)
    for name in _LOADED_LATER:
        importlib.import_module(name)
    source: Any = _open(0, task["size"]) if task["listed"] is None else ListedPath.of_task(task["name"], task["listed"])
    loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: loaded + MEMORY_BYTES[task["reader"]],
        # for the case that the parent ends first
        resource.RLIMIT_CPU: max(1, math.ceil(task["seconds"])) * (os.cpu_count() or 1),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 0,  # also where the kernel takes no filter: nothing beyond the pipes is opened
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    seal()
    result: dict[str, Any]
    try:
        result = reader.measure_here(source, task)
    except (UnusableDataset, UnusableModel) as error:
        result = {"code": error.code, "message": error.message, "param": error.param}
    text = json.dumps(result).encode()
    asking.write(_REQUEST.pack(_RESULT, 0, len(text)) + text)
    asking.flush()


if __name__ == "__main__":
    serve_parent()
