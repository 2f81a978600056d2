"""Context of the server's commands: this machine's instance, and errors as a sentence on stderr and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from secateur.cli.output import explain
from secateur_wire.errors import ApiError, InvalidRequest
from worker.failures import CommandFailed

if TYPE_CHECKING:
    from worker.embedded.instance import EmbeddedInstance

FAILED = 1
USAGE = 2


@contextmanager
def print_errors() -> Iterator[None]:
    """Turn errors that a user can fix into a message and an exit code."""
    try:
        yield
    except ApiError as error:
        where = f" ({error.param})" if error.param and not error.message.startswith(error.param) else ""
        explain(f"{error.title}{where}: {error.message}")
        raise typer.Exit(USAGE if isinstance(error, InvalidRequest) else FAILED) from error
    except CommandFailed as error:
        explain(error)
        raise typer.Exit(FAILED) from error


@contextmanager
def local_instance() -> Iterator["EmbeddedInstance"]:
    """Yield the instance in the home of this machine; errors are explained to the user."""
    from core.settings import Settings  # slow to load, and only some commands need it
    from worker.embedded.instance import open_instance

    with print_errors(), open_instance(Settings()) as instance:
        yield instance
