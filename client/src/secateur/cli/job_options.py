"""The options of a job, which several commands take, and the job body that they say."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import typer

from secateur.cli.option_groups import Command, expanded
from secateur_wire.job_options import Option, body_of, job_options, pairs

JobOptions: TypeAlias = Mapping[str, Any]
"""Options of a job that were given: values by the option's name."""

_TYPES = {"number": float, "integer": int}


def takes_job_options(*groups: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options of a job, in place of its parameter `job`.

    These are the options of some groups of the table, or of all. The command gets as `job` those that were given.
    """
    options = [each for each in job_options().values() if not groups or each.group in groups]

    parameters = [_parameter(each) for each in options]

    def gather(values: dict[str, Any]) -> JobOptions:
        given = zip(options, values.values(), strict=True)
        return {option.name: value for option, value in given if value not in (None, [])}

    return lambda command: expanded(command, "job", parameters, gather)


def _parameter(option: Option) -> inspect.Parameter:
    field = option.field
    kind: Any = _TYPES.get(field.type, str) if field and not field.takes_all else str
    wanted = list[str] | None if option.is_list else kind | None
    declared = typer.Option(option.name, metavar=option.metavar or None, help=option.help)
    return inspect.Parameter(
        option.name.removeprefix("--").replace("-", "_"),
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None,
        annotation=Annotated[wanted, declared],
    )


def job_body(job: JobOptions) -> dict[str, Any]:
    """Return the part of a job body that options say, without a method where none is named.

    Raises typer.BadParameter for options that make no valid body.
    """
    try:
        return body_of(job)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def named_values(given: list[str], option: str) -> dict[str, str]:
    """Parse KEY=VALUE, each key once. Raises typer.BadParameter where one is no pair, or a key comes twice."""
    try:
        return pairs(given, option, "KEY=VALUE")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
