"""How the server's commands fail: with a sentence on stderr and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from core.errors import InvalidRequest, SecateurError
from secateur.cli.output import explain
from worker.demo import DemoFailed
from worker.downloads import DownloadFailed
from worker.embedded import PostgresFailed
from worker.serve import ServeFailed

FAILED = 1
USAGE = 2


@contextmanager
def told() -> Iterator[None]:
    """Errors a user can do something about become a message and an exit code."""
    try:
        yield
    except SecateurError as error:
        where = f" ({error.param})" if error.param and not error.message.startswith(error.param) else ""
        explain(f"{error.title}{where}: {error.message}")
        raise typer.Exit(USAGE if isinstance(error, InvalidRequest) else FAILED) from error
    except (ServeFailed, PostgresFailed, DownloadFailed, DemoFailed) as error:
        explain(error)
        raise typer.Exit(FAILED) from error
