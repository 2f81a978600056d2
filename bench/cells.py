"""A cell: one program run in a process of its own, its wall time and peak memory taken by the parent, its answer kept.

The parent must stay small and never load torch: a child's peak resident memory counts from what it inherits at the
moment it is started.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

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


def own_program(module: str) -> Program:
    """A module of this package that uses the engine, in this interpreter."""
    sources = [*sorted(_SOURCES.rglob("*.py")), _file_of("bench.cell_program"), _file_of(module)]
    return Program((sys.executable, "-m", module), f"{own_release()} {_digest(sources)}")


def engine_program(module: str, more: Sequence[Path] = ()) -> Program:
    """The same where only the engine is used, so that what jobs, teams and the registry do changes nothing; `more` are
    further sources that count.
    """
    engine = [file for folder in _ENGINE for file in sorted((_SOURCES / folder).rglob("*.py"))]
    sources = [_DEVICES, *engine, *more, _file_of("bench.cell_program"), _file_of(module)]
    return Program((sys.executable, "-m", module), f"{own_release()} {_digest(sources)}")


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


def run(program: Program, spec: dict[str, Any], key: str) -> Measured:
    """Run a program on a spec; raises CellFailed."""
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
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.kill()  # where the terminal did not end it too
            process.wait()
            raise
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not result_file.is_file():
        raise CellFailed(f"exit code {process.returncode}, log {log_file}:\n{log_file.read_text()[-2000:]}")
    return Measured(
        seconds=seconds,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
        result=json.loads(result_file.read_text()),
    )


def recall(key: str) -> dict[str, Any] | None:
    """Figures cached under a key."""
    file = CACHE / "cells" / f"{key}.json"
    return dict(json.loads(file.read_text())) if file.is_file() else None


def remember(key: str, figures: dict[str, Any]) -> None:
    """Cache figures, whole or not at all."""
    file = CACHE / "cells" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(figures, indent=2))
    partial.replace(file)


def _file_of(module: str) -> Path:
    return _ROOT.joinpath(*module.split(".")).with_suffix(".py")


def _digest(files: list[Path]) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:20]
