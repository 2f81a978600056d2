"""Chat templates: programs in Jinja that come with a tokenizer. None is ever rendered here, but each must parse."""

from collections.abc import Iterator
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.errors import UnusableModel

MOST_CHARACTERS = 2**17
"""Most characters of one template: the longest known have a quarter of it."""
MOST_TEMPLATES = 32


class _Generation(Extension):
    """The tag that transformers adds: {% generation %} … {% endgeneration %} round what the model wrote."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_PARSER = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])


def check_templates(said: Any, file: str) -> None:
    """Raise UnusableModel where a template, or one of a list or object of them, is too long or does not parse.

    Parsing builds a tree of the text: nothing of it is compiled, evaluated or called.
    """
    templates = list(_texts(said))
    if len(templates) > MOST_TEMPLATES:
        raise UnusableModel(f"{file} holds {len(templates)} chat templates, more than {MOST_TEMPLATES}", param="model")
    for template in templates:
        if len(template) > MOST_CHARACTERS:
            raise UnusableModel(
                f"{file} holds a chat template of {len(template)} characters, more than {MOST_CHARACTERS}",
                param="model",
            )
        try:
            _PARSER.parse(template)
        except (TemplateError, ValueError, RecursionError) as error:
            reason = ascii(str(error)[:200]) if str(error) else type(error).__name__
            raise UnusableModel(
                f"{file} holds a chat template that is no Jinja: {reason}; mend it, or remove it", param="model"
            ) from error


def _texts(said: Any) -> Iterator[str]:
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict | list):
        for inner in said.values() if isinstance(said, dict) else said:
            yield from _texts(inner)
