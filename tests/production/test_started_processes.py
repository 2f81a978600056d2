"""Processes that the service starts: a new place that starts one says how it is secluded."""

import ast
import re
from collections.abc import Iterator

from tests.production.files import ROOT

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
_STARTS = re.compile(r"run|call|check_\w+|system|[pP]open|fork\w*|exec\w+|(posix_)?spawn\w*|create_subprocess_\w+")
_STARTERS = ("asyncio", "os", "subprocess", "worker.processes", "processes")


def test_every_place_that_starts_a_process_has_its_seclusion() -> None:
    found, elsewhere = set(), []
    for source in ("api", "client/src", "core", "migrations", "worker"):
        for file in (ROOT / source).rglob("*.py"):
            text, name = file.read_text(), str(file.relative_to(ROOT))
            found |= {f"{name}:{function}" for function in _starting_functions(ast.parse(text))}
            others = ("import multiprocessing", "from multiprocessing", "import pty", "ProcessPoolExecutor")
            elsewhere += [name for each in others if each in text]
    assert found == set(SECLUSION), "say how a new process is secluded"
    assert not elsewhere


def _starting_functions(tree: ast.Module) -> Iterator[str]:
    """Yield the innermost function around each call that starts a program."""
    nodes = list(ast.walk(tree))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module in _STARTERS]
    imported = {alias.name for node in imports for alias in node.names}
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in nodes:
        if isinstance(node, ast.Call):
            owner, _, called = ast.unparse(node.func).rpartition(".")
            is_known = owner.rpartition(".")[2] in _STARTERS if owner else called in imported
            if is_known and _STARTS.fullmatch(called):
                inside = [each for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
                yield inside[-1].name if inside else ""
