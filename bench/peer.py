"""llm-compressor in a virtual environment of its own: its dependencies never meet this project's."""

import subprocess
import sys
from pathlib import Path

from bench.cells import CACHE

PACKAGE = "llmcompressor"
_RELEASE = """
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in ("llmcompressor", "torch", "transformers")), sep=", ")
"""


def peer_environment(*, upgrade: bool) -> tuple[Path, str]:
    """The environment's interpreter, and the releases of what counts in it.

    Installs the newest release where there is none; `upgrade` looks for a newer one.
    """
    folder = (CACHE / PACKAGE).absolute()
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if upgrade or not _release(python):
        print(f"Installing {PACKAGE} into {CACHE / PACKAGE}", flush=True)
        install = ["install", "--quiet", "--disable-pip-version-check", "--upgrade", PACKAGE]
        subprocess.run([python, "-m", "pip", *install], check=True)
    return python, _release(python)


def _release(python: Path) -> str:
    answer = subprocess.run([python, "-c", _RELEASE], capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else ""
