"""Reader of a folder's tokenizer.json, without the library that tokenizes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from core.engine.checkpoints.code_choices import TOKENIZER_CLASSES
from core.engine.checkpoints.companions import read_json
from core.engine.checkpoints.files import TOKENIZER_CONFIG_FILE
from core.engine.removals.vocabulary.tokenizers.byte_pairs import BytePairs
from core.engine.removals.vocabulary.tokenizers.refusal import refusal
from core.engine.removals.vocabulary.tokenizers.tokenizer import Tokenizer
from core.engine.removals.vocabulary.tokenizers.unigram import Unigram
from core.engine.removals.vocabulary.tokenizers.words import WordLevel, WordPiece
from core.untrusted_json import JsonLimits

TOKENIZER_FILE: Final = "tokenizer.json"
_LIMITS: Final = JsonLimits(values=8_000_000, levels=64)
"""Limits of a tokenizer.json: a vocabulary of 260,000 tokens has some 600,000 merges of two parts each."""
_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Tokenizer]]] = {
    "BPE": BytePairs,
    "Unigram": Unigram,
    "WordLevel": WordLevel,
    "WordPiece": WordPiece,
}
_KINDS_BY_KEY: Final = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}
"""Kinds of model by a key that no other has, for older files, which do not name the kind."""


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a model folder.

    Raises InvalidRequest for a tokenizer that cannot be cut exactly, UnusableModel for a file that cannot be read.
    """
    if (folder / TOKENIZER_CONFIG_FILE).is_file():
        named = read_json(folder / TOKENIZER_CONFIG_FILE).get("tokenizer_class")
        if named is not None and named not in TOKENIZER_CLASSES:
            raise refusal(f"is of the class {str(named)[:100]!r}, which has code of its own")
    file = folder / TOKENIZER_FILE
    if not file.is_file():
        raise refusal(f"has no {TOKENIZER_FILE}")
    return parse_tokenizer(read_json(file, _LIMITS))


def parse_tokenizer(content: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json's content; raises as `read_tokenizer`."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise refusal(f"has a {TOKENIZER_FILE} without a model")
    kind = str(model.get("type") or next((kind for key, kind in _KINDS_BY_KEY.items() if key in model), None))
    if kind not in _KINDS:
        raise refusal(f"is of the kind {kind[:100]!r}, which is none of {', '.join(_KINDS)}")
    try:
        return _KINDS[kind]({**content, "model": {"type": kind, **model}})
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise refusal(f"has a {TOKENIZER_FILE} that is not as the library writes it ({error!r:.100})") from error
