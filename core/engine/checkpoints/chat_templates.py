"""Chat templates: programs in Jinja that come with a tokenizer. None is ever rendered here, but each must parse."""

from collections.abc import Iterator
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.errors import UnusableModel

MOST_CHARACTERS = 2**17
"""Most characters of all templates of a file together: the longest known template has a quarter of it.

Jinja takes some 5 µs to parse a character, so that a file takes less than a second.
"""
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
    """Raise UnusableModel where the templates are too many or too long, or one does not parse.

    `said` is a template, or a list or object of them.
    Parsing builds a tree of the text: nothing of it is compiled, evaluated or called.
    """
    templates = list(_texts(said))
    if len(templates) > MOST_TEMPLATES:
        raise UnusableModel(f"{file} holds {len(templates)} chat templates, more than {MOST_TEMPLATES}", param="model")
    characters = sum(map(len, templates))
    if characters > MOST_CHARACTERS:
        what = "a chat template" if len(templates) == 1 else f"{len(templates)} chat templates"
        raise UnusableModel(
            f"{file} holds {what} of {characters} characters, more than {MOST_CHARACTERS}", param="model"
        )
    for template in templates:
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
