"""Files next to a model's weights, checked before anything opens them: configs, special tokens, chat templates."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.engine.checkpoints.code_choices import refuse_choices
from core.engine.checkpoints.files import CHECKED, CONFIG_FILE, MOST_BYTES, TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from core.untrusted_json import FILE_LIMITS, JsonLimits, parse_json
from secateur_wire.errors import UnsafeConfig, UnusableModel

TEMPLATE_FOLDER = "additional_chat_templates"
_TEMPLATE_KEY = "chat_template"
_WITH_TEMPLATES = (TOKENIZER_CONFIG_FILE, "chat_template.json", "processor_config.json")
"""JSON files that may hold chat templates under that key."""
_ADAPTER_FILE = "adapter_config.json"
_SHARD = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
MOST_CHARACTERS = 2**17
"""Largest total length, in characters, of a file's templates: four times the longest known template.

Jinja takes about 5 µs to parse a character, so a file takes less than a second.
"""
MOST_TEMPLATES = 32


class _Generation(Extension):
    """Tag that transformers adds: {% generation %} … {% endgeneration %} around the model's own words."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_PARSER = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])


def check_templates(content: Any, file: str) -> None:
    """Raise UnusableModel where there are too many templates, or one is too long or does not parse.

    `content` is a template, or a list or object of templates. Parsing builds a syntax tree; nothing is compiled,
    evaluated or called.
    """
    templates = list(_texts(content))
    if len(templates) > MOST_TEMPLATES:
        raise UnusableModel(
            f"{file} holds {len(templates)} chat templates; at most {MOST_TEMPLATES} are allowed", param="model"
        )
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
                f"{file} holds a chat template that is not valid Jinja: {reason}; correct it, or remove it",
                param="model",
            ) from error


def template_constants(folder: Path) -> list[str]:
    """Return the texts and the string constants of a folder's chat templates, each once, in order.

    Templates are parsed and not rendered. Raises UnusableModel as `check_companions` does.
    """
    templates = [_read_text(folder / TEMPLATE_FILE)] if (folder / TEMPLATE_FILE).is_file() else []
    for name in _WITH_TEMPLATES:
        if (folder / name).is_file():
            templates += _texts(read_json(folder / name).get(_TEMPLATE_KEY))
    templates += [_read_text(file) for file in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))]
    check_templates(templates, folder.name)
    literals = (each for template in templates for each in _PARSER.parse(template).find_all(nodes.Literal))
    constants = (getattr(each, field) for each in literals for field in each.fields)
    return list(dict.fromkeys(each for each in constants if isinstance(each, str)))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _texts(inner)


def check_companions(folder: Path) -> None:
    """Check all files of a folder except config.json, as far as they exist.

    Raises UnsafeConfig where a file would make other code or files open, UnusableModel where a file cannot be read.
    """
    for name in CHECKED:
        if name != CONFIG_FILE and (folder / name).is_file():
            check_companion(folder / name)
    _check_template_folder(folder / TEMPLATE_FOLDER)
    for name, most in MOST_BYTES.items():
        if (folder / name).is_file():
            _require_size(folder / name, most)
    if (folder / _ADAPTER_FILE).exists():
        raise UnsafeConfig(
            f"the folder has {_ADAPTER_FILE}, which makes peft change the model: merge the adapter into the weights "
            "(merge_and_unload), or remove the file",
            param="model",
        )
    for file in folder.glob("shard-*.safetensors"):
        if _SHARD.fullmatch(file.name):
            raise UnsafeConfig(
                f"the folder has {file.name}, which makes it open as a distributed checkpoint: save it with "
                "save_pretrained, in one process",
                param="model",
            )


def check_companion(file: Path) -> None:
    """Check one file of `CHECKED` other than config.json; raises as `check_companions`."""
    if file.name == TEMPLATE_FILE:
        check_templates(_read_text(file), file.name)
        return
    content = read_json(file)
    refuse_choices(content, file.name)
    check_templates(content.get(_TEMPLATE_KEY), file.name)


def read_json(file: Path, limits: JsonLimits = FILE_LIMITS) -> dict[str, Any]:
    """Return the object in a JSON file; raises UnusableModel where it is too large, no JSON or no object."""
    _require_size(file, MOST_BYTES.get(file.name, MOST_BYTES[CONFIG_FILE]))
    try:
        value = parse_json(file.read_bytes(), limits)
    except ValueError as error:
        raise UnusableModel(f"{file.name} is not valid JSON: {str(error)[:200]}", param="model") from error
    if not isinstance(value, dict):
        raise UnusableModel(f"{file.name} is not a JSON object", param="model")
    return value


def _check_template_folder(folder: Path) -> None:
    """Check a folder of further chat templates: together they have the length limit of one file's templates."""
    characters = 0
    for file in folder.glob("*.jinja"):
        template = _read_text(file)
        characters += len(template)
        if len(template) <= MOST_CHARACTERS < characters:
            raise UnusableModel(
                f"{folder.name} holds chat templates of more than {MOST_CHARACTERS} characters together", param="model"
            )
        check_templates(template, f"{folder.name}/{file.name[:100]}")


def _read_text(file: Path) -> str:
    _require_size(file, MOST_BYTES[TEMPLATE_FILE])
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UnusableModel(f"{file.name[:100]} is not UTF-8 text", param="model") from error


def _require_size(file: Path, most: int) -> None:
    if file.stat().st_size > most:
        raise UnusableModel(f"{file.name[:100]} is larger than {most} bytes", param="model")
