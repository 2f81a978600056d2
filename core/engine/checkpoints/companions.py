"""Files next to a model's weights, checked before anything opens it: configs, special tokens, chat templates."""

import re
from pathlib import Path
from typing import Any

from core.engine.checkpoints.chat_templates import MOST_CHARACTERS, check_templates
from core.engine.checkpoints.code_choices import refuse_choices
from core.engine.checkpoints.files import CHECKED, CONFIG_FILE, MOST_BYTES, TEMPLATE_FILE
from core.errors import UnsafeConfig, UnusableModel
from core.untrusted_json import parse_json

_TEMPLATE_FOLDER = "additional_chat_templates"
_TEMPLATE_KEY = "chat_template"
_ADAPTER_FILE = "adapter_config.json"
_SHARD = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")


def check_companions(folder: Path) -> None:
    """Check all files of a folder but config.json, as far as they are there.

    Raises UnsafeConfig where one would have other code or files opened, UnusableModel where one cannot be read.
    """
    for name in CHECKED:
        if name != CONFIG_FILE and (folder / name).is_file():
            check_companion(folder / name)
    _check_template_folder(folder / _TEMPLATE_FOLDER)
    for name, most in MOST_BYTES.items():
        if (folder / name).is_file():
            _require_size(folder / name, most)
    if (folder / _ADAPTER_FILE).exists():
        raise UnsafeConfig(
            f"the folder holds {_ADAPTER_FILE}, by which peft would be loaded to change the model: merge the adapter "
            "into the weights (merge_and_unload), or move the file away",
            param="model",
        )
    for file in folder.glob("shard-*.safetensors"):
        if _SHARD.fullmatch(file.name):
            raise UnsafeConfig(
                f"the folder holds {file.name}, by which it would be opened as a distributed checkpoint: save it with "
                "save_pretrained, in one process",
                param="model",
            )


def check_companion(file: Path) -> None:
    """Check one of `CHECKED`, config.json left out; raises as `check_companions`."""
    if file.name == TEMPLATE_FILE:
        check_templates(_read_text(file), file.name)
        return
    content = read_json(file)
    refuse_choices(content, file.name)
    check_templates(content.get(_TEMPLATE_KEY), file.name)


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raises UnusableModel where it is too large, no JSON or no object."""
    _require_size(file, MOST_BYTES.get(file.name, MOST_BYTES[CONFIG_FILE]))
    try:
        value = parse_json(file.read_bytes())
    except ValueError as error:
        raise UnusableModel(f"{file.name} is not valid JSON: {str(error)[:200]}", param="model") from error
    if not isinstance(value, dict):
        raise UnusableModel(f"{file.name} is not a JSON object", param="model")
    return value


def _check_template_folder(folder: Path) -> None:
    """Check a folder of further chat templates: together they may be as long as the templates of one file."""
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
