"""The commands that a job's page shows to run its artifact, run as they are shown."""

import contextlib
import io
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from core.pipeline.reports.how_to_run import FOLDER
from secateur_wire.jobs import WayToRun
from tests.forked_processes import write_warm_program


def run_here(way: WayToRun, artifact: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the output of the program among the commands, run in this process, which has loaded the libraries."""
    program, printed = _program(way, artifact, place), io.StringIO()
    monkeypatch.chdir(place)
    with contextlib.redirect_stdout(printed):
        exec(compile(program, way.runtime, "exec"), {})
    return printed.getvalue()


def run_in_shell(commands: str, place: Path, **variables: str) -> str:
    """Return the output of a shell that is given the commands, whose `python` has loaded the libraries."""
    programs = place / "programs"
    write_warm_program(programs / "python")
    search = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-e"],
        input=commands.encode(),
        cwd=place,
        capture_output=True,
        timeout=100,
        env=os.environ | {"PATH": search, "OMP_NUM_THREADS": "1"} | variables,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


def lay_out(way: WayToRun, artifact: Path, place: Path) -> None:
    """Put the artifact where the commands expect it; their packages are there."""
    for package in way.packages:
        assert distribution(package).version
    (place / FOLDER).symlink_to(artifact)


def _program(way: WayToRun, artifact: Path, place: Path) -> str:
    lay_out(way, artifact, place)
    first, *lines, last = way.commands.splitlines()
    assert (first, last) == ("python - <<'END'", "END")
    return "\n".join(lines)
