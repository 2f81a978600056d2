"""Parts of the service without the seconds that loading their libraries takes: forked, as runners are, from one process
that has loaded them. Some sixty start in a run of the suite. What starts by its command line is tested in
`test_devices`, `test_serve` and `tests/production`.
"""

import atexit
import json
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import IO, NoReturn

from tests.forked_processes import warm_python
from worker.processes import ChildProcess
from worker.runner.fork_server import ForkServer
from worker.runner.forking_process import main

_LOADED = (
    "api.app",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "core.service.jobs.folder_broker",
    "core.service.jobs.redis_broker",
    "kombu.transport.filesystem",
    "secateur.cli",
    "tests.worker.supervise",
    "worker.cli",
    "worker.dispatcher.clock",
    "worker.embedded.serve",
)
"""All but `worker.app` and what imports it: that reads its settings as soon as it is loaded."""
_COMMAND = "FORKED_PART"


def fork_part(
    command: Sequence[str], *, name: str, log: IO[bytes], environment: Mapping[str, str], has_pipe: bool = False
) -> ChildProcess:
    """Start `python -m MODULE ARGUMENT…`. Where it `has_pipe` its stdout is that, else it goes into the log too."""
    python, option, *module = command
    assert (python, option) == (sys.executable, "-m"), command
    variables = {**environment, _COMMAND: json.dumps([has_pipe, *module])}
    return _server().fork(name=name, stderr=log, variables=variables, libraries=())


@cache
def _server() -> ForkServer:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
    server = ForkServer(own, (*warm_python(), "-m", __name__, *_LOADED))
    assert server.forks
    atexit.register(server.close)
    return server


def _run() -> NoReturn:
    """Be the part: end as the interpreter does, which runs what libraries have registered for its end."""
    has_pipe, module, *arguments = json.loads(os.environ.pop(_COMMAND))
    if not has_pipe:
        os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _run))
