"""The command line `secateur`. One file per group of commands; `output.py` is what all of them print through.

`options.py` has the options that several commands take.

Exit codes: 0 succeeded, 1 failed, 2 usage (also what the server refuses as bad input), 3 a gate was missed. Results go
to stdout (with `--json` exactly one JSON document and nothing else), progress and errors to stderr.

**Joining commands.** Another package adds commands through the entry-point group `secateur.commands`. Each entry point
is a function `register(app: typer.Typer) -> None`, called before the command line is read, in the order of the entry
points' names. It may add commands to `app`, and to the groups `models_app`, `datasets_app` and `keys_app` below. A
command registered under a name that is taken replaces the one there. The server's package does so with `models add` and
`datasets add`, because it can take files into an embedded server's home, which a client cannot; for any other server it
calls what it replaced:

    def register(app: typer.Typer) -> None:
        app.command("serve")(serve)
        models_app.command("add")(add_to_home_or_call_add_model)

`add_model`, `add_dataset`, `show_model`, `show_dataset`, `follow` and `print_job` are there for such commands to call.
"""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Annotated, Any, Final, Protocol

import typer
from typer.core import TyperGroup

from secateur.cli.download import download, unpack
from secateur.cli.inspection import inspect
from secateur.cli.jobs import cancel, jobs_app, report, retry, show
from secateur.cli.keys import keys_app
from secateur.cli.methods import methods
from secateur.cli.output import escaped_output, explain, print_job
from secateur.cli.plan import plan
from secateur.cli.prune import prune
from secateur.cli.publish import publications_app, publish
from secateur.cli.registry import (
    add_dataset,
    add_model,
    datasets_app,
    models_app,
    show_dataset,
    show_model,
)
from secateur.cli.retention import retention_app
from secateur.cli.run import run
from secateur.cli.submit import submit
from secateur.cli.summary import summary
from secateur.cli.sweeps import sweep_app, sweeps
from secateur.cli.team import audit, hub_token_app, people, queues, team, workers
from secateur.cli.triggers import triggers_app
from secateur.cli.verify import verify
from secateur.cli.watch import follow, watch
from secateur.cli.webhooks import webhooks_app
from secateur.cli.workload_rules import workload_rules_app
from secateur.errors import ApiError, ConfigurationError, SecateurError, ServerError, TooManyRequests
from secateur_wire import gone

__all__ = [
    "add_dataset",
    "add_model",
    "app",
    "command_line",
    "datasets_app",
    "follow",
    "keys_app",
    "main",
    "models_app",
    "print_job",
    "show_dataset",
    "show_model",
]

ENTRY_POINT_GROUP = "secateur.commands"
GROUPS: Final[Mapping[str, Sequence[str]]] = {
    "Jobs": (
        *("prune", "plan", "submit", "jobs", "show", "watch", "report", "summary", "cancel", "retry"),
        *("download", "unpack", "verify", "run", "publish", "publications", "sweep", "sweeps"),
    ),
    "Models and data": ("inspect", "methods", "models", "datasets", "samples"),
    "Automation": ("triggers", "webhooks", "retention"),
    "Team": ("team", "people", "keys", "workload-rules", "hub-token", "audit"),
    "Server": ("doctor", "reproduce", "serve", "stop", "demo", "workers", "queues", "teams", "store"),
}
"""Commands of each group, in the order of the help, including those that the server's package adds."""

OTHERS: Final = "Others"
"""A group of commands that another package adds."""

LONGEST: Final = 110
"""Number of characters shown of a command's first sentence, on as many lines as needed."""


class _Formatter(Protocol):
    """Writer of help, with the two methods used here."""

    def section(self, name: str) -> AbstractContextManager[None]: ...
    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None: ...


class GroupedCommands(TyperGroup):
    """Command group whose help lists the commands by topic."""

    def format_commands(self, ctx: object, formatter: _Formatter) -> None:
        """Write the names and first sentences of all commands."""
        named = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, OTHERS: [name for name in self.commands if name not in named]}
        width = max(map(len, self.commands))
        for group, names in groups.items():
            there = [(name, self.commands[name]) for name in names if name in self.commands]
            rows = [(name.ljust(width), each.get_short_help_str(LONGEST)) for name, each in there if not each.hidden]
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command by its name; one that has left the product is refused with what to use instead."""
        for command, instead in gone.COMMANDS.items():
            if args[: command.count(" ") + 1] == command.split():
                ctx.fail(f"{command!r} has left: {instead}.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> object:
        """Run a command; what is wrong with its options is said without the name of an exception's kind."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as refused:
            refused.message = refused.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="secateur",
    cls=GroupedCommands,
    help="Begin with `secateur prune MODEL -o FOLDER`: it makes a model smaller, with one command.\n\nThe other "
    "commands do its steps one by one, or manage what a team shares.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_versions(value: bool) -> None:
    """Print the versions of client, server and PyTorch, as far as they are installed, and of Python."""
    if not value:
        return
    for package in ("secateur", "secateur-server", "torch"):
        with suppress(PackageNotFoundError):
            print(package, version(package))
    print("Python", platform.python_version())
    raise typer.Exit


for command in (
    *(prune, plan, methods, inspect, submit, show, report, summary, watch, cancel, retry),
    *(download, unpack, verify, run, publish),
    *(sweeps, team, people, workers, queues, audit),
):
    app.command()(command)
app.add_typer(jobs_app, name="jobs")
app.add_typer(publications_app, name="publications")
app.add_typer(retention_app, name="retention")
app.add_typer(sweep_app, name="sweep")
app.add_typer(keys_app, name="keys")
app.add_typer(workload_rules_app, name="workload-rules")
app.add_typer(hub_token_app, name="hub-token")
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")
app.add_typer(webhooks_app, name="webhooks")
app.add_typer(triggers_app, name="triggers")


@app.callback()
def _versions(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_versions, is_eager=True, help="Print the versions, and end.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> None:
    """Run the command line; never returns."""
    with escaped_output():
        run = command_line()
        try:
            run()
        except SecateurError as error:
            explain(error)
            passes = isinstance(error, ServerError | TooManyRequests)
            sys.exit(2 if isinstance(error, ConfigurationError | ApiError) and not passes else 1)
        except OSError as error:
            explain(error)
            sys.exit(1)


@cache
def command_line() -> Callable[[], object]:
    """Return the command line, including commands of other packages; called, it parses the arguments and runs one."""
    _join_commands()
    return typer.main.get_command(app)


def _join_commands() -> None:
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP)):
        try:
            register = entry_point.load()
        except ImportError as error:
            explain(f"the commands of {entry_point.value} are not available: {error}")
            continue
        register(app)
