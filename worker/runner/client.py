"""Client of one runner task in the supervisor: start it, send the spec, read messages, explain how it ended."""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from core.pipeline.messages import Spec
from core.telemetry import current_traceparent, span
from secateur_wire.base import JsonObject
from secateur_wire.errors import DiskFull, InternalError, OutOfMemory, RunFailed, RunnerLost, SecateurError
from secateur_wire.problems import StoredProblem
from worker.processes import ChildProcess, spawn
from worker.runner.fork_server import fork_runner
from worker.runner.messages import ErrorMessage, Message, ResultMessage, parse_message

RUNNER: tuple[str, ...] = (sys.executable, "-P", "-m", "worker.runner")
POLL_SECONDS = 0.2
_FULL_DISK_BYTES = 2**16
"""Free bytes below which a process may end without a message, because not even its log can be written."""
_ENDED_FOR_MEMORY = ("MemoryError", "torch.OutOfMemoryError", "what():  std::bad_alloc", "memory allocation of ")
"""Beginnings of the last line of a process that ran out of memory: of Python, C++ and Rust."""
EXIT_SECONDS = 30
"""Time for a runner that has closed its output to end by itself."""

PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "TORCH", "PYTORCH", "CUBLAS_", "KMP_")


class ReportedFailure(RunFailed):
    """Error that the runner reported itself; code, param and retryable are the runner's."""

    def __init__(self, error: ErrorMessage) -> None:
        super().__init__(error.message, param=error.param)
        self._error = error

    def problem(self) -> StoredProblem:
        return {
            "code": self._error.code,
            "message": self._error.message,
            "param": self._error.param,
            "retryable": self._error.retryable,
        }


class Draining(Exception):
    """Signal that the worker stops, and the job goes back to the queue.

    A runner that prunes may finish its block first, for at most `seconds`.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class KilledForMemory(OutOfMemory):
    """Error of a process that the kernel ended because memory ran out."""


class ResultMissing(RunnerLost):
    """Error of a runner that ended successfully but without a result."""

    retryable = False


def run_task(
    spec: Spec,
    *,
    log: Path,
    on_message: Callable[[Message], None],
    on_wait: Callable[[], None],
    grace_seconds: float,
    command: Sequence[str] = RUNNER,
) -> JsonObject:
    """Run one task to its end and return its result.

    `on_message` gets every message except result and error. `on_wait` is called a few times a second. An exception from
    either ends the runner's group (SIGINT, `grace_seconds`, SIGKILL) and is raised from here. `Draining` is different:
    the runner gets SIGTERM, at which a runner that prunes stops after its block, and any other at once. `Draining` is
    raised when the runner has ended, or its time is over. `log` takes the runner's stderr.

    Raises the error that the runner reported (`ReportedFailure`), `OutOfMemory` if memory ran out, `RunnerLost` if a
    signal ended it, and `InternalError` for anything else.
    """
    with span(f"runner.{spec.task}"):
        on_wait()
        kills_before = memory_kills()
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as stderr:
            child = _start(spec, command, stderr)
        waiting = _Waiting(child, on_wait)
        outcome: ResultMessage | ErrorMessage | None = None
        try:
            with contextlib.suppress(BrokenPipeError):  # it died at once: its exit code says why
                child.stdin.write(spec.model_dump_json().encode() + b"\n")
                child.stdin.close()
            for message in read_messages(child, waiting):
                if isinstance(message, ResultMessage | ErrorMessage):
                    outcome = message
                else:
                    on_message(message)
            code = wait_for_exit(child, waiting)
        finally:
            child.end(grace_seconds, signal.SIGINT)
        if waiting.draining is not None and not isinstance(outcome, ResultMessage):
            raise waiting.draining
        if isinstance(outcome, ErrorMessage):
            raise ReportedFailure(outcome)
        if outcome is None or code != 0:
            raise unexplained_end(code, spec.task, log, memory_kills() > kills_before)
        return outcome.result


def _start(spec: Spec, command: Sequence[str], stderr: IO[bytes]) -> ChildProcess:
    """Start the runner: forked if it has the usual command, otherwise executed."""
    name, variables = f"runner {spec.task}", {}
    if (traceparent := current_traceparent()) is not None:
        variables["TRACEPARENT"] = traceparent
    seen = runner_environment()
    if command == RUNNER:
        forked = fork_runner(name=name, stderr=stderr, environment=seen, variables=variables, libraries=spec.libraries)
        if forked is not None:
            return forked
    return spawn(
        command,
        name=name,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        environment={**seen, **variables},
    )


class _Waiting:
    """Wait callback that calls `on_wait`; after a request to drain it limits the time that the runner may take."""

    def __init__(self, child: ChildProcess, on_wait: Callable[[], None]) -> None:
        self._child = child
        self._on_wait = on_wait
        self._until = 0.0
        self.draining: Draining | None = None

    def __call__(self) -> None:
        try:
            self._on_wait()
        except Draining as draining:
            if self.draining is None:
                self.draining = draining
                self._until = time.monotonic() + draining.seconds
                self._child.send(signal.SIGTERM)
            elif time.monotonic() >= self._until:
                self._child.send_group(signal.SIGKILL)  # its time is over
                raise


def runner_environment() -> dict[str, str]:
    """Return the environment of the runner: an allow-list, so that it gets no credentials and no address of a hub.

    CUDA counts devices as the driver's tools do, so that a number means the same device to both.
    """
    passed = {k: v for k, v in os.environ.items() if k in PASSED_ON or k.startswith(PASSED_ON_PREFIXES)}
    return (
        {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        | passed
        | {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )


def memory_kills(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of processes that the kernel's out-of-memory killer has ended.

    The control group's counter is used if there is one, otherwise the machine's; 0 if neither can be read.
    """
    with contextlib.suppress(OSError, StopIteration):
        own_group = next(line for line in (proc / "self/cgroup").read_text().splitlines() if line.startswith("0::"))
        folder = groups / own_group.removeprefix("0::").lstrip("/")
        return _counter(folder / "memory.events", "oom_kill")
    with contextlib.suppress(OSError, StopIteration):
        return _counter(proc / "vmstat", "oom_kill")
    return 0


def _counter(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.split()[0] == name)


def read_messages(child: ChildProcess, on_wait: Callable[[], None]) -> Iterator[Message]:
    """Yield a process's messages until it ends or closes its stdout; `on_wait` is called a few times a second.

    Raises InternalError for a line that is not a message.
    """
    for line in _lines(child, on_wait):
        try:
            yield parse_message(line)
        except ValidationError as error:
            raise InternalError(f"The runner wrote a line that is not a message: {line[:200]!r}") from error


def _lines(child: ChildProcess, on_wait: Callable[[], None]) -> Iterator[bytes]:
    """Yield lines of stdout until it is closed, or until the runner has ended and no more lines are there.

    The second condition is needed because a process that the runner started may keep the pipe open.
    """
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            on_wait()
            running = child.is_running()
            if selector.select(POLL_SECONDS if running else 0):
                chunk = os.read(child.stdout.fileno(), 1 << 16)
                *lines, pending = (pending + chunk).split(b"\n")
                yield from (line for line in lines if line.strip())
                if chunk:
                    continue
                break
            if not running:
                break
    if pending.strip():
        yield pending


def wait_for_exit(child: ChildProcess, on_wait: Callable[[], None]) -> int:
    """Return the exit code of a process that has closed its stdout."""
    deadline = time.monotonic() + EXIT_SECONDS
    while time.monotonic() < deadline:
        on_wait()
        if (code := child.wait(POLL_SECONDS)) is not None:
            return code
    raise InternalError("The runner closed its output but did not end.")


def unexplained_end(code: int, task: str, log: Path, killed_for_memory: bool) -> SecateurError:
    """Return the error of a process that ended without a message, from its exit code, its log and the machine."""
    last_line = _last_line(log)
    if code == -signal.SIGKILL and killed_for_memory:
        return KilledForMemory(f"The system ended the runner ({task}) because memory ran out.")
    if last_line.startswith(_ENDED_FOR_MEMORY):
        return OutOfMemory(f"The runner ({task}) ran out of memory: {last_line}")
    if "No space left on device" in last_line or shutil.disk_usage(log.parent).free < _FULL_DISK_BYTES:
        return DiskFull(f"no space left on the worker's disk: the runner ({task}) could not go on")
    if code < 0:
        return RunnerLost(f"The runner ended without a result ({task}): {signal.Signals(-code).name} ended it.")
    if code == 0:
        return ResultMissing(f"The runner ended without a result ({task}).")
    return InternalError(f"The runner ({task}) ended with exit code {code}: {last_line or 'no message'}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
