"""Shared options of commands: the fields of a dataclass, and the options of a job with their body."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import wraps
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer
from typer.core import TyperGroup

from secateur_wire.job_options import Option, body_of, job_options, pairs

Command = Callable[..., None]

JobOptions: TypeAlias = Mapping[str, Any]
"""Given options of a job: values by the option's name."""

_TYPES = {"number": float, "integer": int}


class ListingGroup(TyperGroup):
    """Command group that lists by itself. Its options are for that alone: before a subcommand they are refused."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        given = [each.opts[-1] for each in self.params if _is_typed(ctx, each.name)]
        if given:
            raise typer.BadParameter(
                f"{', '.join(given)}: these options are of the list that `{ctx.command_path}` shows alone: write those "
                f"of `{args[0]}` behind it"
            )
        return super().resolve_command(ctx, args)


def _is_typed(context: Any, name: str | None) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def expanded(
    command: Command, name: str, options: Sequence[inspect.Parameter], gather: Callable[[dict[str, Any]], object]
) -> Command:
    """Return a command with options in place of a parameter; the parameter gets `gather` of their values."""

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
    """Return a command with an option for each field of its parameter `options`, a dataclass."""
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
    """Return a decorator that replaces a command's parameter `job` by the options of a job.

    The options are those of some groups of the table, or all. The command gets the given options as `job`.
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
    """Return the part of a job body for these options, without a method if none is given.

    Raises typer.BadParameter for options that make an invalid body.
    """
    try:
        return body_of(job)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def named_values(given: list[str], option: str) -> dict[str, str]:
    """Parse KEY=VALUE, each key once. Raises typer.BadParameter for a malformed pair or a repeated key."""
    try:
        return pairs(given, option, "KEY=VALUE")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
