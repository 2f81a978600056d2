"""Counts of texts: their tokens, by the library that tokenizes, and their scripts, by the Unicode database."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from fontTools import unicodedata as unicode_scripts
from numpy.typing import NDArray
from tokenizers import Tokenizer

from core.engine.datasets.formats import DOCUMENT_END
from core.engine.vocabulary.tokenizer_kinds import TOKENIZER_FILE
from core.panics import is_panic
from secateur_wire.errors import InvalidRequest, UnusableModel

MOST_CHARACTERS: Final = 200_000_000
"""Characters of each text that are counted."""
_BATCH_CHARACTERS: Final = 2**20
"""Characters that are tokenized at a time; their tokens take some 100 bytes each."""
_SHARED: Final = frozenset({"Zyyy", "Zinh", "Zzzz"})
"""Codes of what all scripts share, or none has: punctuation, digits, blanks, combining marks, unassigned characters."""
_LEAST_SHARE: Final = 0.01
"""Smallest share of a text's letters with which it uses a script; an encyclopaedia has single words of many scripts."""
_LENGTHS: Final = {0xC: 2, 0xD: 2, 0xE: 3, 0xF: 4}
"""Bytes of a character in UTF-8 by the upper half of its first byte, where there is more than one."""


@dataclass(frozen=True)
class Counts:
    """Tokens of texts.

    `by_id` has the number of times that each token occurs, int64 [ids]; `scripts` the number of characters of each
    script, of those that belong to one.
    """

    by_id: NDArray[np.int64]
    scripts: Mapping[str, int]

    @property
    def tokens(self) -> int:
        """Return the number of tokens of all texts."""
        return int(self.by_id.sum())


def count_tokens(documents: Iterable[str], folder: Path) -> Counts:
    """Count the tokens of documents by the tokenizer.json of a folder, without special tokens around a document.

    Every document ends as in the windows of tokens on which models run (`DOCUMENT_END`).

    A document of more than a million characters is tokenized in parts, which end with a line where there is one. Raises
    UnusableModel where the tokenizer does not open or fails on a text.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        counts = np.zeros(max(tokenizer.get_vocab().values(), default=-1) + 1, np.int64)
        characters: Counter[str] = Counter()
        for batch in _batches(documents):
            for part in batch:
                characters.update(part)
            encoded = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            ids = np.fromiter(chain.from_iterable(each.ids for each in encoded), np.int64)
            counts += np.bincount(ids, minlength=len(counts))
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise UnusableModel(f"the tokenizer fails on a text: {str(error)[:200]}", param="model") from error
    scripts: Counter[str] = Counter()
    for character, count in characters.items():
        name = script_of(character)
        if name is not None:
            scripts[name] += count
    return Counts(counts, dict(sorted(scripts.items())))


def counted_documents(documents: Iterable[str]) -> Iterator[str]:
    """Yield the documents of a text that are counted: the first ones, of `MOST_CHARACTERS` together."""
    characters = 0
    for document in documents:
        if characters >= MOST_CHARACTERS:
            return
        characters += len(document)
        yield document


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Yield batches of documents and parts of documents."""
    batch: list[str] = []
    characters = 0
    for document in documents:
        for part in _parts(document + DOCUMENT_END):
            batch.append(part)
            characters += len(part)
            if characters >= _BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _parts(document: str) -> Iterator[str]:
    start = 0
    while len(document) - start > _BATCH_CHARACTERS:
        end = document.rfind("\n", start, start + _BATCH_CHARACTERS) + 1 or start + _BATCH_CHARACTERS
        yield document[start:end]
        start = end
    yield document[start:]


@lru_cache(maxsize=65536)
def script_of(character: str) -> str | None:
    """Return the name of the script of a character, as `Latin`; None where scripts share it, as punctuation."""
    code = unicode_scripts.script(character)
    return None if code in _SHARED else unicode_scripts.script_name(code)


def scripts_of(spelled: bytes) -> frozenset[str]:
    """Return the scripts of the characters in a token's bytes, which may begin or end within a character.

    A character that is cut off counts with the scripts of the first and the last character that it can be.
    """
    return scripts_of_characters(spelled) | {
        name for name in map(script_of, _ends_of_range(spelled)) if name is not None
    }


def scripts_of_characters(spelled: bytes) -> frozenset[str]:
    """Return the scripts of the whole characters in a token's bytes."""
    text = spelled.decode(errors="ignore")
    return frozenset(name for name in map(script_of, text) if name is not None)


def used_scripts(characters: Mapping[str, int]) -> tuple[str, ...]:
    """Return the scripts with at least 1 % of the letters, most used first, by numbers of characters of each script."""
    total = sum(characters.values())
    used = [name for name, count in characters.items() if count >= _LEAST_SHARE * total]
    return tuple(sorted(used, key=lambda name: (-characters[name], name)))


def read_scripts(names: Iterable[str]) -> tuple[str, ...]:
    """Return the scripts' own names by names or codes, as `Latin` or `Latn`; raises InvalidRequest for unknown ones."""
    return tuple(dict.fromkeys(map(_read_script, names)))


def _read_script(name: str) -> str:
    code = name if unicode_scripts.script_name(name, None) else unicode_scripts.script_code(name, None)
    if code is None:
        raise InvalidRequest(
            f"scripts: {name[:100]!r} is not a script of Unicode: name it as Unicode does, for example 'Latin', "
            "'Cyrillic', 'Han', 'Devanagari'",
            param="scripts",
        )
    own_name: str = unicode_scripts.script_name(code)
    return own_name


def _ends_of_range(spelled: bytes) -> str:
    """Return the first and the last character that the bytes of a cut-off character at the end can begin."""
    for place in range(max(0, len(spelled) - 3), len(spelled)):
        length = _LENGTHS.get(spelled[place] >> 4, 0)
        if len(spelled) - place < length:
            begun = spelled[place:]
            ends = (begun + fill * (length - len(begun)) for fill in (b"\x80", b"\xbf"))
            return "".join(each.decode(errors="ignore") for each in ends)
    return ""
