"""The wheels, opened where there is no checkout: `python -m tests.production.wheels [--fresh]`.

Both are built, hold every file of their packages, and are installed into an environment of their own. There, in a
folder that has a user's modules `core` and `api`, the commands `--version`, `doctor` and `serve` are run, with neither
git nor make on their PATH. The dependencies are those of the environment that this runs in. With `--fresh` pip fetches
them from the package index, and the demo and a job by `prune` are run too, as a new user would.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from bench.parts import free_port
from tests.production.files import ROOT
from worker.processes import spawn

PROJECTS = {
    "client": ("client/src", ("secateur", "secateur_wire")),
    ".": (".", ("api", "core", "worker", "migrations")),
}
"""Folder of each project, with where its packages lie and their names."""
READY_SECONDS = 120
SYSTEM_PROGRAMS = "/usr/sbin"
"""Folder of useradd, which makes PostgreSQL's user where root starts it."""


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)


def build(target: Path) -> list[Path]:
    """Build source archives, and wheels from these; each wheel holds every file of its packages."""
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target))
    for project, (sources, packages) in PROJECTS.items():
        before = set(target.glob("*.whl"))
        subprocess.run([*command, project], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        [wheel] = set(target.glob("*.whl")) - before
        names = set(zipfile.ZipFile(wheel).namelist())
        files = (file for name in packages for file in (ROOT / sources / name).rglob("*") if file.is_file())
        there = {str(file.relative_to(ROOT / sources)) for file in files if "__pycache__" not in file.parts}
        lacking = there - names - {"migrations/script.py.mako"}  # what new migrations are written from
        assert not lacking, f"{wheel.name} lacks {lacking}"
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {len(names)} files")
    return sorted(target.glob("*.whl"))


def install(environment: Path, wheels: list[Path], is_fresh: bool) -> None:
    """Install the wheels: beside the dependencies that are installed here, or with all that pip fetches for them."""
    venv.create(environment, with_pip=is_fresh)
    if is_fresh:
        client, server = map(str, wheels)
        pip = (str(environment / "bin/python"), "-m", "pip", "install", "--quiet")
        subprocess.run([*pip, client, f"{server}[worker]"], check=True)
        return
    [packages] = environment.glob("lib/python*/site-packages")
    dependencies = next(path for path in sys.path if path.endswith("site-packages") and path.startswith(sys.prefix))
    (packages / "dependencies.pth").write_text(dependencies)
    pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "install", "--quiet")
    subprocess.run(
        [*pip, "--no-index", "--no-deps", "--no-compile", "--ignore-installed", *map(str, wheels)], check=True
    )


class Installed:
    """The commands of an environment, run in a folder that has modules of the same names as ours."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self._programs, self._folder = environment / "bin", folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SECATEUR_", "PYTHON"))}
        self._variables = {
            **kept,
            "PATH": f"{self._programs}:{SYSTEM_PROGRAMS}",
            "SECATEUR_DISK_WATERMARK_BYTES": "1000000",
        }
        (folder / "core").mkdir(parents=True)
        for module in ("core/__init__.py", "api.py"):
            (folder / module).write_text("raise ImportError('this is a module of the user')")

    def run(self, program: str, *arguments: str) -> str:
        """Return what a command prints; it ends with 0."""
        ended = subprocess.run(
            [self._programs / program, *arguments],
            env=self._variables,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{program} {arguments} ended with {ended.returncode}: {ended.stdout}"
        return ended.stdout

    def require_own_modules(self) -> None:
        names = [name for _, packages in PROJECTS.values() for name in packages]
        code = f"import {', '.join(names)}; print(*({', '.join(f'{name}.__path__[0]' for name in names)},), sep='\\n')"
        for path in self.run("python", "-P", "-c", code).splitlines():
            assert Path(path).is_relative_to(self._programs.parent), path

    def serve(self) -> None:
        """Serve a home until a worker is up, ask for a page of the portal and what it needs, and stop."""
        command = [str(self._programs / "secateur"), "serve", "--port", str(free_port())]
        server = spawn(command, name="serve", environment=self._variables, folder=self._folder)
        address = self._folder / ".secateur" / "url"
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not address.exists():
                assert server.is_running() and time.monotonic() < deadline, "the server is not ready"
                time.sleep(0.1)
            url = address.read_text().strip()
            for path in ("/readyz", "/portal/", "/openapi.json"):
                with urlopen(url + path) as answer:
                    content = answer.read()
                assert path != "/readyz" or json.loads(content)["can_run"], content
            self.run("secateur", "methods")
            self.run("secateur", "stop")
        finally:
            server.end(grace_seconds=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="all from the package index, and the demo")
    is_fresh = parser.parse_args().fresh
    with TemporaryDirectory(prefix="secateur-wheels-") as name:
        folder = Path(name)
        with timed("built"):
            wheels = build(folder / "dist")
        with timed("installed"):
            install(folder / "environment", wheels, is_fresh)
        installed = Installed(folder / "environment", folder / "user")
        with timed("imported"):
            installed.require_own_modules()
        with timed("secateur --version"):
            print(installed.run("secateur", "--version"), end="")
        with timed("secateur doctor"):
            print(installed.run("secateur", "doctor"), end="")
        with timed("secateur serve, to readiness, and stop"):
            installed.serve()
        if is_fresh:
            with timed("secateur demo"):
                print(installed.run("secateur", "demo"), end="")
            with timed("secateur prune"):
                print(installed.run("secateur", "prune", "smollm2-135m", "-o", "pruned", "--for", "sparsity"), end="")


if __name__ == "__main__":
    main()
