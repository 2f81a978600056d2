"""Reads the cases from `FIRST` to `LAST` with little memory, and tells of each on stdout: `begin N`, then `end N how`.

`python -m tests.fuzz.reader FIRST LAST`. How: `ok`, `refused`, or `wrong` with what should not have been raised.
"""

import gc
import resource
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from core.engine.architectures.describe import inspect_folder
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.datasets.text_files import describe, read_documents
from core.engine.models.gguf_header import read_gguf_header, require_importable
from secateur_wire.errors import InvalidRequest, SecateurError, UnusableDataset, UnusableModel
from tests.fuzz.cases import case

ROOM_BYTES = 512 * 2**20
"""Above what the process holds when it begins."""
LONGEST_MESSAGE = 4000


def _read_gguf(folder: Path) -> None:
    file = folder / "model.gguf"
    with file.open("rb") as stream:
        require_importable(read_gguf_header(stream, file.name, file.stat().st_size))


READERS: dict[str, Callable[[Path], object]] = {
    "header": lambda folder: read_header(folder / "model.safetensors"),
    "model": inspect_folder,
    "jsonl": lambda folder: describe(folder / "text.jsonl", "jsonl"),
    "text": lambda folder: describe(folder / "text.txt", "text"),
    "parquet": lambda folder: deque(read_documents(folder / "text.parquet", "parquet"), maxlen=0),
    "gguf": _read_gguf,
}


def limit_memory(room: int = ROOM_BYTES) -> None:
    """Take no more address space than now and this room."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def outcome(reader: str, folder: Path) -> str:
    try:
        READERS[reader](folder)
    except SecateurError as error:
        return how_refused(error)
    except BaseException as error:
        return f"wrong {type(error).__name__}: {str(error)[:300]!r}"
    return "ok"


def how_refused(error: SecateurError) -> str:
    """The message must be fit for an answer and for the database."""
    if not isinstance(error, UnusableModel | UnusableDataset | InvalidRequest):
        return f"wrong kind {type(error).__name__}"
    if "\0" in error.message or len(error.message) > LONGEST_MESSAGE:
        return f"wrong message of {len(error.message)} characters: {error.message[:200]!r}"
    try:
        error.message.encode()
    except UnicodeEncodeError:
        return f"wrong message: {error.message[:200]!r}"
    return "refused"


def main(first: int, last: int) -> None:
    limit_memory()
    for number in range(first, last):
        print(f"begin {number}", flush=True)
        with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            reader, files = case(number)
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            print(f"end {number} {outcome(reader, Path(folder))}", flush=True)
        if number % 500 == 0:
            gc.collect()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
