"""Runner: the only process that opens models; a spec on stdin, JSON lines on stdout, diagnostics on stderr.

It has no credentials and reaches no network (`core.seclusion`). Output that a library prints goes to stderr,
so that stdout carries only messages.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
from typing import NoReturn

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
import transformers

from core.engine.models.accelerator import backend_of, ran_out_of_memory
from core.engine.models.memory_limit import limit_memory, memory_left
from core.panics import is_panic
from core.pipeline.messages import DeviceSpec
from core.pipeline.stages.context import device_of, memory_room
from core.pipeline.stages.registry import parse_spec
from core.pipeline.stages.run import run_stage
from core.progress import WorkStopped
from core.seclusion import seclude
from secateur_wire.errors import DiskFull, InternalError, OutOfMemory, SecateurError
from worker.processes import peak_resident_bytes
from worker.runner.message_writer import MessageProgress, open_messages, send, signs_of_life, stop_once_saved
from worker.runner.messages import ErrorMessage, ResultMessage

STOPPED = 75
"""Exit code of a runner that was asked to stop (SIGTERM) and has saved its newest block or step; it can resume later.
"""


def _classify(error: BaseException) -> SecateurError:
    """Return the error as a member of the error tree."""
    if isinstance(error, SecateurError):
        return error
    if ran_out_of_memory(error):
        if isinstance(error, torch.OutOfMemoryError):  # its message already names the requested and the free memory
            return OutOfMemory(f"memory ran out: {str(error)[:300]}")
        return OutOfMemory(
            f"memory ran out: {str(error)[:300] or type(error).__name__}. {memory_left()} bytes are free."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left on the worker's disk: {error.filename or error.strerror}")
    return InternalError(f"{type(error).__name__}: {str(error)[:500]}")


def main() -> int:
    """Read a spec, run it, and send its result or its error; return 0, 1 or STOPPED. SIGINT ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    open_messages()
    os.dup2(2, 1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        spec = parse_spec(sys.stdin.buffer.read())
        threads = spec.threads if isinstance(spec, DeviceSpec) else None
        if threads is None and "OMP_NUM_THREADS" not in os.environ:
            threads = len(os.sched_getaffinity(0))
        if threads is not None:
            torch.set_num_threads(threads)
        if not backend_of(device_of(spec)).kind.has_own_memory:  # a GPU's driver reserves far more than it uses
            limit_memory(memory_room(spec))
        if spec.saves_progress:
            stop_once_saved()
        with signs_of_life():
            output = run_stage(spec, MessageProgress(), peak_resident_bytes)
    except WorkStopped:
        return STOPPED
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        with contextlib.suppress(OSError):  # the disk of the log may be full
            traceback.print_exc()
        known = _classify(error)
        send(ErrorMessage(**known.problem()))
        return 1
    send(ResultMessage(result=output.model_dump(mode="json", exclude_unset=True)))
    return 0


def finish() -> NoReturn:
    """Run the spec, and end this process at once.

    Everything is written by then, and threads of libraries could block a normal interpreter exit. The process leaves
    the network, where the system allows that, before it reads anything of a job.
    """
    if (refused := seclude()) is not None:
        print(f"This runner is not kept from the network: {refused}.", file=sys.stderr)
    try:
        ended = main()
    except SystemExit as stopped:
        ended = int(stopped.code or 0)
    sys.stderr.flush()
    os._exit(ended)


if __name__ == "__main__":
    finish()
