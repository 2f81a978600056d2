"""Config and other files of a model folder that name tokens: the ids they hold, and copies of them with new ids."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.engine.checkpoints.companions import TEMPLATE_FOLDER, read_json
from core.engine.checkpoints.files import CONFIG_FILE, SPECIAL_TOKENS_FILE, TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from core.engine.vocabulary.tokenizer import refusal
from core.engine.vocabulary.tokenizer_kinds import TOKENIZER_FILE, read_tokenizer
from secateur_wire.base import JsonObject

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
_SIZE: Final = "vocab_size"
_SIZES: Final = re.compile(r"((text|padded|encoder|decoder)_)?vocab_size|n_vocab")
"""Keys that hold the number of rows of the vocabulary."""
_IDS: Final = re.compile(
    r"(?!codebook_)(.+_)?(token|bos|eos|pad|sep|cls|mask|unk)_(id|ids|index|indices|idx)|padding_idx|"
    r"(begin_)?suppress_tokens|bad_words_ids|force_words_ids|(lang|lang_code|task|language)_to_id"
)
"""Keys that hold ids of tokens as transformers names them: numbers, or lists or objects of numbers."""
_PAIRS: Final[Mapping[str, int]] = {"forced_decoder_ids": 1, "sequence_bias": 0}
"""Keys that hold a list of pairs, and the place of the ids in a pair; the other place has a position, or a bias."""


def named_ids(folder: Path, size: int) -> set[int]:
    """Return the ids of a vocabulary of `size` rows that config.json and the files beside it name."""
    files = [folder / name for name in (CONFIG_FILE, *_NAMING_IDS)]
    return {number for file in files if file.is_file() for number in config_ids(read_json(file), size)}


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


def config_ids(config: Mapping[str, Any], size: int) -> set[int]:
    """Return the ids that a config names at any depth, of a text vocabulary of `size` rows.

    `config` is the content of config.json, of generation_config.json, or of another file beside them. A part with a
    `vocab_size` of its own, as a model of sound has it, names ids of another vocabulary and is left out. Numbers that
    are no row, as -100, are left out too.
    """
    ids: set[int] = set()

    def add(number: int) -> int:
        ids.add(number)
        return number

    _Renumbering(size, size, add).config(config)
    return ids


def renumbered(config: Mapping[str, Any], kept: Sequence[int], *, size: int) -> JsonObject:
    """Return a config with new ids at any depth, and `vocab_size` wherever it is the text's `size`.

    The kept ids ascend; the new ids are their places. Raises InvalidRequest where an id that the config names is not
    kept, as one of a row that has no token.
    """
    numbers = {old: new for new, old in enumerate(kept)}

    def number_of(old: int) -> int:
        if old not in numbers:
            raise refusal(f"has no kept token of the id {old}, which the config names")
        return numbers[old]

    return _Renumbering(size, len(kept), number_of).config(config)


class _Renumbering:
    """Change of every id in a config, and of the vocabulary's size from `size` to `new_size`."""

    def __init__(self, size: int, new_size: int, change: Callable[[int], int]) -> None:
        self._size = size
        self._new_size = new_size
        self._change = change

    def config(self, config: Mapping[str, Any]) -> JsonObject:
        return {key: self._entry(key, value) for key, value in config.items()}

    def _entry(self, key: str, value: Any) -> Any:
        if _SIZES.fullmatch(key) and value == self._size:
            return self._new_size
        if _IDS.fullmatch(key):
            return self._ids(value)
        if key in _PAIRS and isinstance(value, list):
            return [self._pair(each, _PAIRS[key]) for each in value]
        return self._part(value)

    def _part(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._part(each) for each in value]
        if isinstance(value, dict) and value.get(_SIZE, self._size) == self._size:
            return self.config(value)
        return value

    def _ids(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._ids(each) for each in value]
        if isinstance(value, dict):
            return {key: self._ids(each) for key, each in value.items()}
        is_row = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < self._size
        return self._change(value) if is_row else value

    def _pair(self, pair: Any, place: int) -> Any:
        if not isinstance(pair, list):
            return pair
        return [self._ids(each) if index == place else each for index, each in enumerate(pair)]
