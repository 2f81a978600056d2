"""Child process that answers one question about a model from an untrusted source: secluded, and with limits.

It gets the question and nothing else: no network, credentials, database or device. It has one thread, and limits on its
time and memory.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from core.settings import Settings
from secateur_wire.errors import DiscoveryFailed
from worker.processes import ChildProcess, spawn
from worker.runner.client import memory_kills, runner_environment, unexplained_end

_LOOK_SECONDS = 0.5
_MOST_ANSWER_BYTES = 64 * 2**20


def ask_child(
    command: Sequence[str],
    question: str,
    *,
    name: str,
    settings: Settings,
    on_wait: Callable[[], None],
    seconds: float | None = None,
    memory_bytes: int | None = None,
    file_bytes: int = 0,
) -> bytes:
    """Return a child's answer on its standard output to a question on its standard input.

    The child may take `seconds` and `memory_bytes`, by default the limits of a discovery. It may write files of
    `file_bytes`, and always an answer. `on_wait` is called twice a second, and ends the child by an error of its own.
    Raises DiscoveryFailed if the child fails or takes too long.
    """
    with TemporaryDirectory(prefix=f"secateur-{name}-") as temporary:
        folder = Path(temporary)
        asking, answer, log = (folder / each for each in ("question.json", "answer.json", "log"))
        asking.write_text(question)
        kills_before = memory_kills()
        with asking.open("rb") as stdin, answer.open("wb") as stdout, log.open("wb") as stderr:
            memory = settings.discovery_memory_bytes if memory_bytes is None else memory_bytes
            limits = (str(memory), str(max(_MOST_ANSWER_BYTES, file_bytes)))
            child = spawn(
                [sys.executable, "-m", "worker.runner.secluded", *limits, *command],
                name=name,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                environment=_environment(folder),
            )
        try:
            code = _wait(child, settings.discovery_seconds if seconds is None else seconds, on_wait)
        finally:
            child.end()
        if code != 0:
            ended = unexplained_end(code, name, log, memory_kills() > kills_before)
            raise DiscoveryFailed(ended.message)
        return answer.read_bytes()


def _wait(child: ChildProcess, seconds: float, on_wait: Callable[[], None]) -> int:
    """Return the child's exit code."""
    deadline = time.monotonic() + seconds
    while (code := child.wait(_LOOK_SECONDS)) is None:
        on_wait()
        if time.monotonic() > deadline:
            raise DiscoveryFailed(f"examining the model took longer than {seconds:g} s")
    return code


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of the child: a runner's, with an empty home, no device and one thread."""
    return runner_environment() | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
