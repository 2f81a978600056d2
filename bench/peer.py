"""Programs in virtual environments of their own: their dependencies never meet this project's."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import CACHE

_RELEASES = """
import sys
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in sys.argv[1:]), sep=", ")
"""


def peer_environment(package: str, counted: Sequence[str]) -> tuple[Path, str]:
    """The interpreter of a package's environment, and the releases of what is `counted` in it.

    Installs the newest release where there is none; who removes the environment gets a newer one.
    """
    folder = (CACHE / package).absolute()
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if not _releases(python, counted):
        print(f"Installing {package} into {CACHE / package}", flush=True)
        install = ["install", "--quiet", "--disable-pip-version-check", "--upgrade", package]
        subprocess.run([python, "-m", "pip", *install], check=True)
    return python, _releases(python, counted)


def _releases(python: Path, counted: Sequence[str]) -> str:
    answer = subprocess.run([python, "-c", _RELEASES, *counted], capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else ""
