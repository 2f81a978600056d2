"""Options that several commands take together: those of a dataclass, and those of a job with the body that they say."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import wraps
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer

from secateur_wire.job_options import Option, body_of, job_options, pairs

Command = Callable[..., None]

JobOptions: TypeAlias = Mapping[str, Any]
"""Options of a job that were given: values by the option's name."""

_TYPES = {"number": float, "integer": int}


def expanded(
    command: Command, name: str, options: Sequence[inspect.Parameter], gather: Callable[[dict[str, Any]], object]
) -> Command:
    """Return a command with options in place of a parameter, which gets what `gather` makes of their values."""

    @wraps(command)
    def run(**arguments: Any) -> None:
        values = {each.name: arguments.pop(each.name) for each in options}
        command(**arguments, **{name: gather(values)})

    own = inspect.signature(command)
    parameters: list[inspect.Parameter] = []
    for each in own.parameters.values():
        parameters += options if each.name == name else [each]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def with_options(command: Command) -> Command:
    """Return a command whose parameter `options`, a dataclass, is given by an option for each of its fields."""
    group = get_type_hints(command)["options"]
    hints = get_type_hints(group, include_extras=True)
    options = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(group)
    ]
    return expanded(command, "options", options, lambda values: group(**values))


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
