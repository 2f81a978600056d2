"""Kinds of tokenizers that can be cut, each with the reason why kept texts have the same tokens, and their reader."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from core.engine.checkpoints.code_choices import TOKENIZER_CLASSES
from core.engine.checkpoints.companions import read_json
from core.engine.checkpoints.files import TOKENIZER_CONFIG_FILE
from core.engine.vocabulary.tokenizer import BYTE_CHARACTERS, BYTE_TOKENS, Tokenizer, refusal, without_others
from core.untrusted_json import JsonLimits

TOKENIZER_FILE: Final = "tokenizer.json"
_LIMITS: Final = JsonLimits(values=8_000_000, levels=64)
"""Limits of a tokenizer.json: a vocabulary of 260,000 tokens has some 600,000 merges of two parts each."""
_NO_MERGE: Final = (2**62, -1)


class _Path(NamedTuple):
    """Way to a token: its characters and every token between them and itself; `rank` is that of its last merge."""

    ids: tuple[int, ...]
    rank: int


class BytePairs(Tokenizer):
    """Byte-pair encoding: in each word the adjacent pair of the lowest rank is merged, the leftmost first.

    No merge crosses the ends of a token that is left at the end. So the merges within it are those of its own text
    alone, its *path*, whatever stands around it. If all tokens of a word are kept with their paths, then every merge of
    the dense tokenizer is there, and no new one is: the one with the lowest rank is the same at every step.

    With `ignore_merges` a word that is in the vocabulary is one token without any merge. Such a token needs its path
    all the same if its path leads to it, because it may also occur within a longer word.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        model = content["model"]
        if model.get("dropout"):
            raise refusal("leaves out merges at random (BPE with `dropout`), so a text has no one tokenization")
        super().__init__(content, model["vocab"])
        self._ignores_merges = bool(model.get("ignore_merges"))
        self._prefix: str = model.get("continuing_subword_prefix") or ""
        self._suffix: str = model.get("end_of_word_suffix") or ""
        self._pairs = [_pair(merge) for merge in model["merges"]]
        self._merges = dict(self._read_merges())
        self._paths: dict[int, _Path | None] = {}

    def closure(self, ids: Iterable[int]) -> frozenset[int]:
        """Return the ids together with the tokens on their paths."""
        closed: set[int] = set()
        for token in ids:
            path = self._path(token)
            closed.add(token)
            if path is not None:
                closed.update(path.ids)
        return frozenset(closed)

    def is_reachable(self, token: int) -> bool:
        """Return whether the token's path leads to it, or it can be a word of its own."""
        return self._ignores_merges or self._path(token) is not None

    def rank(self, token: int) -> int:
        """Return the rank of the last merge of the token's path; characters and whole words have their ids.

        Frequent characters do not need a rank of their own, because the merges of them do.
        """
        path = self._path(token)
        return token if path is None or len(path.ids) == 1 else path.rank

    def uses(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Return how often each token is made: as a token of the texts, or on the path of one.

        Each merge shortens the text by a token, and no token on a path has fewer uses than the one at its end. So the
        tokens with the most uses are closed, and of all choices of their number they lengthen these texts least.
        """
        uses: Counter[int] = Counter()
        for token, count in counts.items():
            path = self._path(token)
            for each in (token,) if path is None else path.ids:
                uses[each] += count
        return dict(uses)

    def _always(self) -> Iterable[int]:
        unknown = self.model.get("unk_token")
        names = BYTE_CHARACTERS if self.is_byte_level else BYTE_TOKENS
        return [self._vocabulary[each] for each in (*names, unknown) if each in self._vocabulary]

    def _reduced_model(self, numbers: Mapping[int, int]) -> Mapping[str, Any]:
        vocabulary = without_others(self._vocabulary, numbers)
        merges = [
            merge
            for merge, (left, right) in zip(self.model["merges"], self._pairs, strict=True)
            if left in vocabulary and right in vocabulary and self._merged(left, right) in vocabulary
        ]
        return {"vocab": vocabulary, "merges": merges}

    def _path(self, token: int) -> _Path | None:
        """Return the path of a token; None if its own text is tokenized to something else."""
        if token not in self._paths:
            self._paths[token] = self._merge(token)
        return self._paths[token]

    def _merge(self, token: int) -> _Path | None:
        text = self.tokens[token]
        symbols = [self._vocabulary.get(each, -1) for each in self._characters(text)]
        if -1 in symbols or self._vocabulary.get(text) != token:
            return None
        path = list(symbols)
        rank = 0
        merges = self._merges
        while len(symbols) > 1:
            ranked = [merges.get(pair, _NO_MERGE) for pair in pairwise(symbols)]
            lowest = min(ranked)
            if lowest is _NO_MERGE:
                return None
            place = ranked.index(lowest)
            rank, merged = lowest
            symbols[place : place + 2] = [merged]
            path.append(merged)
        return _Path(tuple(path), rank) if symbols == [token] else None

    def _characters(self, text: str) -> Sequence[str]:
        """Return the symbols with which the merges of a token begin."""
        if not (self._prefix or self._suffix):
            return text
        begins = not (self._prefix and text.startswith(self._prefix))
        body = text if begins else text.removeprefix(self._prefix)
        ends = bool(self._suffix) and body.endswith(self._suffix)
        characters = [*(body.removesuffix(self._suffix) if ends else body)]
        if ends and characters:
            characters[-1] += self._suffix
        return [each if begins and not place else self._prefix + each for place, each in enumerate(characters)]

    def _merged(self, left: str, right: str) -> str:
        return left + right[len(self._prefix) :]

    def _is_across_end(self, left: str, right: str) -> bool:
        """Return whether a merge makes or continues the mark of a word's end, so that a token has two paths."""
        ends = self._suffix
        return bool(ends) and (left.endswith(ends) or (left + right).endswith(ends) != right.endswith(ends))

    def _read_merges(self) -> Iterable[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield the rank and the merged token by its two parts; the last of two merges of the same parts counts."""
        bytes_alone = frozenset(BYTE_TOKENS if self.model.get("byte_fallback") else ())
        for rank, (left, right) in enumerate(self._pairs):
            merged = self._merged(left, right)
            for part in (left, right, merged):
                if part not in self._vocabulary:
                    raise refusal(
                        f"merges {left[:50]!r} and {right[:50]!r}, but {part[:100]!r} is not in its vocabulary"
                    )
            if left in bytes_alone or right in bytes_alone:
                raise refusal(f"merges the byte tokens {left[:50]!r} and {right[:50]!r}")
            if self._is_across_end(left, right):
                raise refusal(f"merges {left[:50]!r} and {right[:50]!r} across the end of a word")
            yield (self._vocabulary[left], self._vocabulary[right]), (rank, self._vocabulary[merged])


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """Return the two parts of a merge, which older files have as one string with a space."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise refusal(f"has a merge that is not of two parts: {str(merge)[:100]!r}")
    return parts[0], parts[1]


class Unigram(Tokenizer):
    """Unigram model (Kudo, 2018): of all segmentations of a word, the one with the highest sum of its pieces' scores.

    The segmentations with kept pieces are some of the dense ones, so the best dense one stays the best if its pieces
    are kept. Of equal ones the library takes the first in a fixed order, which is the same. An unknown character has
    the least score of the vocabulary, less ten, so the piece of the least score stays. A character that is no piece any
    more has that score too, which is less than it had before, so that no worse segmentation wins by it.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        pieces = [(piece, float(score)) for piece, score in content["model"]["vocab"]]
        vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
        if len(vocabulary) < len(pieces):
            raise refusal("has the same piece twice")
        super().__init__(content, vocabulary)
        best = sorted(range(len(pieces)), key=lambda number: -pieces[number][1])
        self._ranks = {number: rank for rank, number in enumerate(best)}
        self._least = min(range(len(pieces)), key=lambda number: pieces[number][1])

    def rank(self, token: int) -> int:
        """Return the place of the piece by its score, which is the logarithm of its probability.

        Characters have rank 0 where there are no bytes to fall back on: without its piece a character is unknown.
        """
        is_last_resort = len(self.tokens[token]) == 1 and not self.model.get("byte_fallback")
        return 0 if is_last_resort else self._ranks.get(token, 0)

    def _always(self) -> Iterable[int]:
        unknown = self.model.get("unk_id")
        fallback = [self._vocabulary[each] for each in BYTE_TOKENS if each in self._vocabulary]
        return [self._least, *fallback, *(() if unknown is None else (unknown,))]

    def _reduced_model(self, numbers: Mapping[int, int]) -> Mapping[str, Any]:
        unknown = self.model.get("unk_id")
        pieces = [each for number, each in enumerate(self.model["vocab"]) if number in numbers]
        return {"vocab": pieces, "unk_id": None if unknown is None else numbers[unknown]}


class WordLevel(Tokenizer):
    """Vocabulary of whole words: a word is a token, or unknown. A word that was unknown stays unknown."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(content, content["model"]["vocab"])

    def rank(self, token: int) -> int:
        """Return the id: vocabularies of words are numbered in the order of their training."""
        return token

    def _always(self) -> Iterable[int]:
        unknown = self._vocabulary.get(self.model["unk_token"])
        return () if unknown is None else (unknown,)

    def _reduced_model(self, numbers: Mapping[int, int]) -> Mapping[str, Any]:
        return {"vocab": without_others(self._vocabulary, numbers)}


class WordPiece(WordLevel):
    """WordPiece (Wu et al., 2016): from the left, the longest token that the rest of the word begins with.

    If the longest of all tokens is kept, it is the longest of the kept ones too. Words that are unknown to the dense
    tokenizer are left out of the promise: once a longer prefix is gone, such a word may come apart into known pieces.
    """

    def rank(self, token: int) -> int:
        """Return the id, as for words; characters have rank 0, since a word without one of them may be unknown."""
        text = self.tokens[token].removeprefix(self.model["continuing_subword_prefix"])
        return 0 if len(text) == 1 else token


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
