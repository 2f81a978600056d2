"""Groups of commands, as `secateur --help` shows them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from typer.core import TyperGroup

GROUPS: Final[Mapping[str, Sequence[str]]] = {
    "Jobs": (
        *("prune", "plan", "submit", "jobs", "show", "watch", "report", "summary", "cancel", "retry"),
        *("download", "unpack", "publish", "publications", "sweep", "sweeps"),
    ),
    "Models and data": ("inspect", "methods", "models", "datasets", "samples"),
    "Automation": ("triggers", "webhooks", "retention"),
    "Team": ("team", "keys", "hub-token", "audit"),
    "Server": ("serve", "stop", "demo", "workers", "queues", "teams", "store"),
}
"""Commands of each group, in the order of the help; those that the server's package adds are among them."""

OTHERS: Final = "Others"
"""Group of commands that another package adds."""

LONGEST: Final = 110
"""Characters of a command's first sentence that are shown, on as many lines as they need."""


class _Formatter(Protocol):
    """Writer of help, as far as it is used here."""

    def section(self, name: str) -> AbstractContextManager[None]: ...
    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None: ...


class GroupedCommands(TyperGroup):
    """Commands whose help names them group by group."""

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
