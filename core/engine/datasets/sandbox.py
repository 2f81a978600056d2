"""Sandboxed reading of texts, images and GGUF headers: a child process with little memory and time, no credentials.

A Parquet file of 300 bytes can unpack to 20 GB, and decoders of Parquet and images are C++ code that was not written
for hostile files. Damage to memory or to the process must not reach the API. The child requests pieces of a file over a
pipe, so that it needs neither a path nor a store; it reads a folder itself. The runner reads texts and images without
this sandbox, because it is already such a process. A GGUF header is always read by a child that can open neither a file
nor a connection, before any library trusts it.
"""

import importlib
import io
import json
import math
import os
import resource
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from secateur_wire.errors import UnusableDataset, UnusableModel

Reader = Literal["texts", "images", "gguf"]
MEMORY_BYTES: Final[dict[Reader, int]] = {"texts": 2**29, "images": 2**29, "gguf": 2**30}
"""Memory in bytes that the child may use beyond its memory after loading its libraries."""
CHECK_BYTES: Final = 2**29 + 2**27
"""Memory in bytes that a check of texts or images may take, libraries included."""
SECONDS: Final = 60.0
BYTES_PER_SECOND: Final = 5_000_000
"""Slowest tolerated rate of reading once `SECONDS` have passed."""

_REQUEST: Final = struct.Struct("<qq")
_LENGTH: Final = struct.Struct("<q")
_RESULT: Final = -1
_BUFFER_BYTES: Final = 2**20

_MODULES: Final[dict[Reader, str]] = {
    "texts": "core.engine.datasets.text_files",
    "images": "core.engine.datasets.image_codec",
    "gguf": "core.engine.models.gguf_header",
}
"""Modules of the readers; the child loads one of them.

The module's `measure_here` takes the stream, if there is one, and the task. It returns the measurements as JSON, or
raises the reader's error.
"""
_ERRORS: Final[dict[Reader, type[UnusableDataset | UnusableModel]]] = {
    "texts": UnusableDataset,
    "images": UnusableDataset,
    "gguf": UnusableModel,
}


def run_sandboxed(reader: Reader, stream: BinaryIO | None, name: str, size: int, **options: Any) -> dict[str, Any]:
    """Return the measurements of an open file, or of the folder named in `options`; raises the reader's error.

    `size` in bytes determines the time limit; `options` is passed on to the reader.
    """
    passed = {variable: os.environ[variable] for variable in ("PATH", "PYTHONPATH") if variable in os.environ}
    environment = {**passed, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    seconds = SECONDS + size / BYTES_PER_SECOND
    command = [sys.executable, "-m", "core.engine.datasets.sandbox"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=Path(__file__).parents[3],
    ) as child:
        clock = threading.Timer(seconds, child.kill)
        clock.daemon = True
        clock.start()
        task = {
            "reader": reader,
            "name": name,
            "size": size,
            "has_stream": stream is not None,
            "seconds": seconds,
            **options,
        }
        try:
            result = _serve(child, stream, task)
        except BrokenPipeError:
            result = None
        finally:
            clock.cancel()
            child.kill()
            with suppress(BrokenPipeError):  # nobody needs the data that the child did not read
                child.communicate()
    unusable = _ERRORS[reader]
    if result is None:
        raise unusable(
            f"{name} could not be read within the time and memory allowed for a file of its size", param="path"
        )
    if "message" in result:
        raise unusable(result["message"], param=result["param"])
    return result


def _serve(child: subprocess.Popen[bytes], stream: BinaryIO | None, task: dict[str, Any]) -> dict[str, Any] | None:
    """Send the child the pieces it requests until it has a result; None where it ends without a result."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(json.dumps(task).encode() + b"\n")
    child.stdin.flush()
    while True:
        request = child.stdout.read(_REQUEST.size)
        if len(request) < _REQUEST.size:
            return None
        start, length = _REQUEST.unpack(request)
        if start == _RESULT:
            text = child.stdout.read(length)
            result: dict[str, Any] | None = json.loads(text) if len(text) == length else None
            return result
        assert stream is not None
        stream.seek(start)
        piece = stream.read(min(length, _BUFFER_BYTES))
        child.stdin.write(_LENGTH.pack(len(piece)) + piece)
        child.stdin.flush()


class _ParentFile(io.RawIOBase):
    """File as the child sees it: each read is a request to the parent."""

    def __init__(self, asking: BinaryIO, answers: BinaryIO, size: int) -> None:
        self._asking = asking
        self._answers = answers
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
        self._asking.write(_REQUEST.pack(self._place, len(buffer)))
        self._asking.flush()
        (length,) = _LENGTH.unpack(self._answers.read(_LENGTH.size))
        buffer[:length] = self._answers.read(length)
        self._place += length
        return int(length)


def serve_parent() -> None:
    """Run the child: limit its resources, measure the file or folder of one task, and send the result."""
    asking, answers = sys.stdout.buffer, sys.stdin.buffer
    task = json.loads(answers.readline())
    measure = importlib.import_module(_MODULES[task["reader"]]).measure_here
    loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: loaded + MEMORY_BYTES[task["reader"]],
        # for the case that the parent ends first
        resource.RLIMIT_CPU: max(1, math.ceil(task["seconds"])) * (os.cpu_count() or 1),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    if task["reader"] == "gguf":
        limits[resource.RLIMIT_NOFILE] = 0  # nothing beyond the pipes: no file, no connection
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    result: dict[str, Any]
    try:
        stream = io.BufferedReader(_ParentFile(asking, answers, task["size"]), _BUFFER_BYTES)
        result = measure(stream if task["has_stream"] else None, task)
    except (UnusableDataset, UnusableModel) as error:
        result = {"message": error.message, "param": error.param}
    text = json.dumps(result).encode()
    asking.write(_REQUEST.pack(_RESULT, len(text)) + text)
    asking.flush()


if __name__ == "__main__":
    serve_parent()
