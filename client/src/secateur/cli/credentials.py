"""Credentials that the command line sends, taken from the environment.

An argument would be visible in the shell's history, and in the process list of everybody on the machine.
"""

import os

import typer


def credential(name: str) -> str | None:
    """Return the value of an environment variable; None where it is unset or blank."""
    return os.environ.get(name, "").strip() or None


def needed_credential(name: str, option: str) -> str:
    """Return the value of the environment variable that `option` names. Raises typer.BadParameter without one."""
    value = credential(name)
    if value is None:
        raise typer.BadParameter(f"the environment variable {name} is not set; name another with {option}")
    return value
