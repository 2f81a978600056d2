"""Counts of the tokens of texts, by the library that tokenizes, a batch of documents at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from core.engine.datasets.formats import DOCUMENT_END
from core.engine.removals.vocabulary.tokenizers.scripts import script_of
from core.engine.removals.vocabulary.tokenizers.tokenizer_file import TOKENIZER_FILE
from core.panics import is_panic
from secateur_wire.errors import UnusableModel

MOST_CHARACTERS: Final = 200_000_000
"""Characters of each text that are counted."""
_BATCH_CHARACTERS: Final = 2**20
"""Characters that are tokenized at a time; their tokens take some 100 bytes each."""


@dataclass(frozen=True)
class Counts:
    """Tokens of texts.

    `by_id` has the number of times that each token occurs, int64 [ids]; `scripts` the number of characters of each
    script, of those that belong to one.
    """

    by_id: NDArray[np.int64]
    documents: int
    bytes: int
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
        number = 0
        for batch, begun in _batches(documents):
            number += begun
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
    size = sum(len(character.encode()) * count for character, count in characters.items())
    return Counts(counts, number, size, dict(sorted(scripts.items())))


def counted_documents(documents: Iterable[str]) -> Iterator[str]:
    """Yield the documents of a text that are counted: the first ones, of `MOST_CHARACTERS` together."""
    characters = 0
    for document in documents:
        if characters >= MOST_CHARACTERS:
            return
        characters += len(document)
        yield document


def _batches(documents: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """Yield batches of documents and parts of documents, with the number of documents that begin in each."""
    batch: list[str] = []
    begun = characters = 0
    for document in documents:
        begun += 1
        for part in _parts(document + DOCUMENT_END):
            batch.append(part)
            characters += len(part)
            if characters >= _BATCH_CHARACTERS:
                yield batch, begun
                batch, begun, characters = [], 0, 0
    if batch:
        yield batch, begun


def _parts(document: str) -> Iterator[str]:
    start = 0
    while len(document) - start > _BATCH_CHARACTERS:
        end = document.rfind("\n", start, start + _BATCH_CHARACTERS) + 1 or start + _BATCH_CHARACTERS
        yield document[start:end]
        start = end
    yield document[start:]
