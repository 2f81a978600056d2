"""The options of a job, which several commands take, and the job body that they say."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, TypeAlias

import typer

from secateur_wire.job_options import Option, body_of, job_options, pairs

JobOptions: TypeAlias = Mapping[str, Any]
"""Options of a job that were given: values by the option's name."""

_TYPES = {"number": float, "integer": int}


def takes_job_options(
    *groups: str, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options of a job in place of its parameter `job`.

    These are all of some groups of the table, or of all of them, `without` some. The command gets as `job` those that
    were given.
    """
    options = [
        each for each in job_options().values() if (not groups or each.group in groups) and each.name not in without
    ]

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**arguments: Any) -> None:
            values = {each.name: arguments.pop(_parameter_name(each)) for each in options}
            command(job={name: value for name, value in values.items() if value not in (None, [])}, **arguments)

        signature = inspect.signature(command)
        own = list(signature.parameters.values())
        place = list(signature.parameters).index("job")
        parameters = [*own[:place], *map(_parameter, options), *own[place + 1 :]]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return with_options


def _parameter_name(option: Option) -> str:
    return option.name.removeprefix("--").replace("-", "_")


def _parameter(option: Option) -> inspect.Parameter:
    field = option.field
    kind: Any = _TYPES.get(field.type, str) if field and not field.takes_all else str
    wanted = list[str] | None if option.is_list else kind | None
    declared = typer.Option(option.name, metavar=option.metavar or None, help=option.help)
    return inspect.Parameter(
        _parameter_name(option),
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
