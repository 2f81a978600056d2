"""Options that several commands take together: one parameter of a command, given on the command line one by one."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, get_type_hints

Command = Callable[..., None]


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
