"""Functions called in fresh processes: each is forked from one that has loaded the libraries and done no more, so that
it has nothing of the test's and need not load them again.
"""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.engine.reloading", "tests.engine.recovering", "worker.runner.checkpoint_names"])


class Apart:
    """A call in a process of its own, under way. The first of a run starts the process that all come from."""

    def __init__(self, function: Callable[..., None], *arguments: object) -> None:
        self._failures, sender = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_call, args=(sender, function, arguments))
        self._process.start()
        sender.close()

    def wait(self) -> None:
        """Return when the function has returned; fails with what it raised."""
        with self._failures:
            try:
                failure = self._failures.recv()
            except EOFError:
                failure = "it ended in the middle of the call"
        self._process.join()
        assert not failure, failure
        self._process.close()


def _call(sender: Connection, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    failure = ""
    try:
        function(*arguments)
    except Exception:
        failure = traceback.format_exc()
    sender.send(failure)
