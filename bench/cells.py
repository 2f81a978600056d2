"""The runner of cells, which every bench that takes long is made of.

A cell is one measurement: its figures are kept on the disk under the hash of all that they depend on. `Runner` recalls
the cells that are kept, runs the others until it is interrupted, and goes on with them the next time. Most cells run a
program in a process of its own (`run`), whose wall time and peak memory the parent takes. Such a parent must stay small
and never load torch: a child's peak resident memory counts from what it inherits at the moment it is started.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import psutil

Figures = dict[str, Any]
Name = TypeVar("Name", bound=Hashable)
CACHE = Path(".cache/bench")
_ROOT = Path(__file__).parent.parent
_SOURCES = _ROOT / "core"
_ENGINE = ("engine", "methods", "pipeline", "storage")
_DEVICES = _SOURCES / "device_kinds.py"


class CellFailed(Exception):
    """The program of a cell ended with an error; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Program:
    """What runs a cell: `arguments` go before the paths of spec and result, `code` changes with the sources."""

    arguments: tuple[str, ...]
    code: str


@dataclass(frozen=True)
class Measured:
    """One process: wall and processor seconds from start to end, peak resident bytes, and the result it wrote."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    result: dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One measurement: the name that its figures are kept under, and the work that gives them, in whatever process."""

    title: str
    key: str
    work: Callable[[], Figures]


@dataclass
class Runner:
    """Runner of cells; one that does not run, or not any more, recalls alone.

    `is_fresh`: what is kept is measured again. `deadline`: time of the monotonic clock after which no cell begins.
    `failures` has the reason of each cell that failed, by its title.
    """

    runs: bool = True
    is_fresh: bool = False
    deadline: float | None = None
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Namespace) -> "Runner":
        """Return the runner of a command, by its `--fresh` and `--recall` where it has them.

        SIGTERM ends it as Ctrl-C does, and the process of a cell with it.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return cls(runs=not getattr(given, "recall", False), is_fresh=getattr(given, "fresh", False))

    def figures(
        self, cells: Mapping[Name, Cell], brief: Callable[[Figures], str] = str, *, at_once: int = 1
    ) -> dict[Name, Figures]:
        """Return the figures of cells by name: first those that are kept, then those that are run, `at_once` at a time.

        `brief` gives the words that tell of a cell that was run. One that fails is told of and left out. An
        interruption, or the end of the time, is told of; then what there is is returned, and nothing more is run.
        """
        found = {} if self.is_fresh and self.runs else recalled(cells)
        missing = {name: cell for name, cell in cells.items() if name not in found}
        waiting = iter(missing.items())
        lock = threading.Lock()
        not_of_cells = set(psutil.Process().children())

        def work_off() -> None:
            while self.runs:
                with lock:
                    item = next(waiting, None)
                if item is None:
                    return
                name, cell = item
                if (figures := self._run(cell)) is not None:
                    found[name] = figures
                    print(f"{cell.title}: {brief(figures)}", flush=True)

        with ThreadPoolExecutor(max(1, at_once - 1)) as pool:
            try:
                others = [pool.submit(work_off) for _ in range(at_once - 1)]
                work_off()
                for each in others:
                    each.result()
            except (KeyboardInterrupt, TimeoutError):
                self.runs = False
                for child in set(psutil.Process().children()) - not_of_cells:
                    child.terminate()
                print("ended early: this shows what there is, the same command goes on", file=sys.stderr, flush=True)
        return {name: found[name] for name in cells if name in found}

    def _run(self, cell: Cell) -> Figures | None:
        """Run a cell and keep what it gives; None where it fails. Raises TimeoutError once the time is over."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise TimeoutError
        try:
            figures = cell.work()
        except CellFailed as failure:
            if self.runs:
                self.failures[cell.title] = str(failure)
                print(f"{cell.title}: failed: {failure}", file=sys.stderr, flush=True)
            return None
        if not self.runs:  # its processes were ended meanwhile: whatever it says came of that
            return None
        remember(cell.key, figures)
        return figures


def recalled(cells: Mapping[Name, Cell]) -> dict[Name, Figures]:
    """Return the figures of the cells that are kept."""
    found = {name: recall(cell.key) for name, cell in cells.items()}
    return {name: figures for name, figures in found.items() if figures is not None}


def engine_program(work: str, more: Sequence[Path] = ()) -> Program:
    """Return the program of a function, `module:function`, that takes a spec and returns figures.

    It runs in this interpreter and uses the engine alone, so that what jobs, teams and the registry do changes nothing;
    `more` are further sources that count.
    """
    engine = [file for folder in _ENGINE for file in sorted((_SOURCES / folder).rglob("*.py"))]
    own = [_ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in ("bench.cell", work.partition(":")[0])]
    sources = [_DEVICES, *engine, *more, *own]
    return Program((sys.executable, "-m", "bench.cell", work), f"{own_release()} {_digest(sources)}")


def own_release() -> str:
    """The releases of what counts in this environment."""
    return ", ".join(f"{name} {version(name)}" for name in ("secateur-server", "torch", "transformers"))


def foreign_program(python: Path, script: Path, release: str) -> Program:
    """A script of this package in another virtual environment; `release` says what is installed there."""
    return Program((str(python), str(script)), f"{release} {_digest([script])}")


def cell_key(program: Program, spec: dict[str, Any], machine: str) -> str:
    """The name a cell's figures are cached under: the work, the code that does it, and the machine."""
    facts = [program.code, {name: value for name, value in spec.items() if name != "output"}, machine]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def run(program: Program, spec: dict[str, Any], key: str, *, limit_seconds: float | None = None) -> Measured:
    """Run a program on a spec; raises CellFailed, and TimeoutError for one that was ended at the limit."""
    folder = CACHE / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    spec_file, result_file, log_file = (folder / f"{key}.{kind}" for kind in ("spec.json", "result.json", "log"))
    spec_file.write_text(json.dumps(spec, indent=2))
    result_file.unlink(missing_ok=True)
    threads = {name: str(spec["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = os.environ | threads | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    begun = time.perf_counter()
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*program.arguments, str(spec_file), str(result_file)], env=environment, stdout=log, stderr=log
        )
        ended = threading.Event()
        if limit_seconds is not None:
            threading.Thread(target=_end_at_limit, args=(process, ended, limit_seconds), daemon=True).start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.kill()  # where the terminal did not end it too
            process.wait()
            raise
        finally:
            ended.set()
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if limit_seconds is not None and seconds >= limit_seconds:
        raise TimeoutError
    if process.returncode or not result_file.is_file():
        raise CellFailed(f"exit code {process.returncode}, log {log_file}:\n{log_file.read_text()[-2000:]}")
    return Measured(
        seconds=seconds,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
        result=json.loads(result_file.read_text()),
    )


def _end_at_limit(process: subprocess.Popen[bytes], ended: threading.Event, seconds: float) -> None:
    if not ended.wait(seconds):
        process.kill()


def recall(key: str) -> dict[str, Any] | None:
    """Figures cached under a key."""
    file = CACHE / "cells" / f"{key}.json"
    return dict(json.loads(file.read_text())) if file.is_file() else None


def forget(key: str) -> None:
    """Remove the figures cached under a key, if there are any."""
    (CACHE / "cells" / f"{key}.json").unlink(missing_ok=True)


def remember(key: str, figures: dict[str, Any]) -> None:
    """Cache figures, whole or not at all."""
    file = CACHE / "cells" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(figures, indent=2))
    partial.replace(file)


def _digest(files: list[Path]) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:20]
