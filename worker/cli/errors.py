"""Context of the server's commands: the home of this machine, and errors as a sentence on stderr and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from core.errors import InvalidRequest, SecateurError
from secateur.cli.output import explain
from worker.failures import CommandFailed

if TYPE_CHECKING:
    from worker.embedded.instance import Home

FAILED = 1
USAGE = 2


@contextmanager
def told() -> Iterator[None]:
    """Turn errors a user can do something about into a message and an exit code."""
    try:
        yield
    except SecateurError as error:
        where = f" ({error.param})" if error.param and not error.message.startswith(error.param) else ""
        explain(f"{error.title}{where}: {error.message}")
        raise typer.Exit(USAGE if isinstance(error, InvalidRequest) else FAILED) from error
    except CommandFailed as error:
        explain(error)
        raise typer.Exit(FAILED) from error


@contextmanager
def home_here() -> Iterator["Home"]:
    """Yield the home of this machine, opened; errors are explained to the user."""
    from core.settings import Settings  # slow to load, for commands that need them alone
    from worker.embedded.instance import open_home

    with told(), open_home(Settings()) as home:
        yield home
