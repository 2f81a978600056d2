"""Files of a model folder that name tokens: which ids and strings they hold, and copies of them with new ids."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.engine.checkpoints.companions import TEMPLATE_FOLDER, read_json, template_constants
from core.engine.checkpoints.files import (
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    TEMPLATE_FILE,
    TOKENIZER_CONFIG_FILE,
)
from core.engine.removals.vocabulary.tokenizers.config_ids import config_ids, renumbered
from core.engine.removals.vocabulary.tokenizers.tokenizer_file import TOKENIZER_FILE, read_tokenizer

_ADDED_FILE: Final = "added_tokens.json"
_GENERATION_FILE: Final = "generation_config.json"
_NAMING_IDS: Final = (
    _GENERATION_FILE,
    TOKENIZER_CONFIG_FILE,
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
"""JSON files beside config.json that may name ids of tokens."""
_COPIED: Final = (SPECIAL_TOKENS_FILE, TEMPLATE_FILE, "chat_template.json")
"""Files that name tokens by their texts alone."""
_LEGACY: Final = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"""Older forms of what tokenizer.json says. Tokenizers of transformers open without them."""


def named_ids(folder: Path, size: int) -> set[int]:
    """Return the ids of a vocabulary of `size` rows that config.json and the files beside it name."""
    files = [folder / name for name in (CONFIG_FILE, *_NAMING_IDS)]
    return {number for file in files if file.is_file() for number in config_ids(read_json(file), size)}


def template_strings(folder: Path) -> list[str]:
    """Return the strings that the chat templates of a folder write or compare with; no template is rendered."""
    return template_constants(folder)


def write_tokenizer(source: Path, target: Path, kept: Sequence[int], *, size: int) -> list[str]:
    """Write the files of a folder that name tokens to another folder, with the kept tokens alone.

    All but config.json are written, for a vocabulary that had `size` rows. Returns a note on every file that is left
    out. Raises InvalidRequest where an id that a file names is not kept.
    """
    target.mkdir(parents=True, exist_ok=True)
    _write_json(target / TOKENIZER_FILE, read_tokenizer(source).reduced(kept))
    numbers = {old: new for new, old in enumerate(kept)}
    for name in _NAMING_IDS:
        if (source / name).is_file():
            content = renumbered(read_json(source / name), kept, size=size)
            _write_json(target / name, _with_decoder(content, numbers))
    if (source / _ADDED_FILE).is_file():
        added = read_json(source / _ADDED_FILE).items()
        _write_json(target / _ADDED_FILE, {text: numbers[number] for text, number in added if number in numbers})
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (source / TEMPLATE_FOLDER).is_dir():
        shutil.copytree(source / TEMPLATE_FOLDER, target / TEMPLATE_FOLDER, dirs_exist_ok=True)
    return [
        f"{name} is left out: it has the whole vocabulary in an older form, and {TOKENIZER_FILE} says the same for the "
        "kept tokens"
        for name in _LEGACY
        if (source / name).is_file()
    ]


def _with_decoder(content: Mapping[str, Any], numbers: Mapping[int, int]) -> dict[str, Any]:
    """Return a tokenizer config with new ids in its table of added tokens."""
    decoder = content.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return dict(content)
    return dict(content) | {
        "added_tokens_decoder": {
            str(numbers[int(number)]): token for number, token in decoder.items() if int(number) in numbers
        }
    }


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
