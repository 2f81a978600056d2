"""Process of an engine, seen from its exporter: it gets one request at a time, and ends when it takes too long.

Only the time for which the exporter waits for answers counts.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, ClassVar, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from core.engine.exporters.engine_process import SpeedTrial
from core.engine.exporters.exporter_info import PARAM
from secateur_wire.errors import ExportFailed

Seconds = list[list[tuple[float, float]]]

SECONDS: Final = 120.0
BYTES_PER_SECOND: Final = 2e9
"""Slowest tolerated rate of computing once `SECONDS` have passed: the file's bytes, for every token of a batch."""
_MOST_OUTPUT: Final = 600
"""Most characters, from the end, of an engine's output in an error."""


class _Answer(BaseModel):
    """Answer of the process; `bytes` is the number of bytes that follow."""

    error: str | None = None
    vocabulary: int = 0
    ids: list[list[int]] = Field(default_factory=list)
    seconds: Seconds = Field(default_factory=list)
    bytes: int = 0


class _TimedProcess:
    """Process with the seconds that it may still take for its answers; it is killed when they have passed."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.process = process
        self._left = seconds
        self.is_late = False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time inside the context."""
        clock = threading.Timer(max(self._left, 0), self._end)
        clock.daemon = True
        began = time.monotonic()
        clock.start()
        try:
            yield
        finally:
            clock.cancel()
            self._left -= time.monotonic() - began

    def _end(self) -> None:
        self.is_late = True
        self.process.kill()


class RunningEngine:
    """Running engine. All its methods raise ExportFailed where a request fails or the process has ended.

    `name` is the engine's, `module` is what its process runs.
    """

    name: ClassVar[str]
    module: ClassVar[str]

    def __init__(self, timed: _TimedProcess, log: IO[bytes], *, largest_file: int, threads: int) -> None:
        self._timed = timed
        self._process = timed.process
        self._log = log
        self._threads = threads
        self._ask("limit_memory", largest_file=largest_file)

    def open(self, file: Path, length: int, batch: int | None = None) -> None:
        """Open a file for sequences of this length, of which up to `batch` tokens are computed at a time; None: all."""
        request = {"file": str(file), "length": length, "batch": min(batch or length, length)}
        self._vocabulary = self._ask("open", threads=self._threads, **request).vocabulary

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self._ask("token_ids", texts=list(texts)).ids

    def speeds(self, files: Sequence[Path], trial: SpeedTrial) -> Seconds:
        """Return the seconds of a prompt and of decoding after it, of each file in turn, `[file][round]`."""
        paths = [str(each) for each in files]
        return self._ask("speeds", files=paths, trial=trial.model_dump(), threads=self._threads).seconds

    def logits(self, ids: Sequence[int], decoded: int = 0, start: int = 0) -> NDArray[np.float32]:
        """Return the logits after each token from `start` on, [time, vocabulary].

        The last `decoded` tokens are computed one by one. The tokens before `start` are those of the call before.
        """
        request = {"ids": list(ids), "vocabulary": self._vocabulary, "decoded": decoded, "start": start}
        size = self._ask("logits", **request).bytes
        assert self._process.stdout is not None
        with self._timed.counted():
            stored = self._process.stdout.read(size)
        if len(stored) < size:
            raise self._ended()
        return np.frombuffer(stored, np.float32).reshape(len(ids) - start, self._vocabulary)

    def _ask(self, doing: str, **request: object) -> _Answer:
        assert self._process.stdout is not None
        with self._timed.counted():
            self._send({"do": doing, **request})
            line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        answer = _Answer.model_validate_json(line)
        if answer.error is not None:
            raise ExportFailed(f"{answer.error}: {self._last_output()}", param=PARAM)
        return answer

    def _send(self, request: dict[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _ended(self) -> ExportFailed:
        code = self._process.wait()
        return ExportFailed(
            f"{self.name} ended with code {code} before it answered: {self._last_output()}", param=PARAM
        )

    def _last_output(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()[-_MOST_OUTPUT:] or "it says nothing"


_Engine = TypeVar("_Engine", bound=RunningEngine)


@contextmanager
def running(engine: type[_Engine], *, largest_file: int, tokens: int, threads: int) -> Iterator[_Engine]:
    """Run an engine inside the context; raise ExportFailed there if it ends early or, retryable, takes too long.

    `tokens` is the largest number of tokens it will compute, with files of up to `largest_file` bytes.
    """
    passed = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "-m", engine.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=passed,
            cwd=Path(__file__).parents[3],
        ) as process,
    ):
        seconds = SECONDS + largest_file * max(tokens, 1) / BYTES_PER_SECOND
        timed = _TimedProcess(process, seconds)
        try:
            yield engine(timed, log, largest_file=largest_file, threads=threads)
        except ExportFailed as error:
            if timed.is_late:
                late = ExportFailed(
                    f"{engine.name} took longer than the {seconds:.0f} s it has: the worker may be busy",
                    param=PARAM,
                )
                late.retryable = True
                raise late from error
            raise
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # nobody needs the requests that it did not read
                process.communicate()
