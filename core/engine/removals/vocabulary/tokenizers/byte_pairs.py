"""Byte-pair encoding with ranked merges (Sennrich et al., 2016), on bytes or with bytes to fall back on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from core.engine.removals.vocabulary.tokenizers.refusal import refusal
from core.engine.removals.vocabulary.tokenizers.spelling import BYTE_CHARACTERS, byte_token, is_byte_level
from core.engine.removals.vocabulary.tokenizers.tokenizer import Tokenizer, without_others
from secateur_wire.base import JsonObject


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
        names = BYTE_CHARACTERS if is_byte_level(self._content) else map(byte_token, range(256))
        return [self._vocabulary[each] for each in (*names, unknown) if each in self._vocabulary]

    def _reduced_model(self, numbers: Mapping[int, int]) -> JsonObject:
        vocabulary = without_others(self._vocabulary, numbers)
        merges = [
            merge
            for merge, (left, right) in zip(self.model["merges"], self._pairs, strict=True)
            if left in vocabulary and right in vocabulary and self._merged(left, right) in vocabulary
        ]
        return dict(self.model) | {"vocab": vocabulary, "merges": merges}

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
        bytes_alone = {byte_token(byte) for byte in range(256)} if self.model.get("byte_fallback") else set()
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


_NO_MERGE: Final = (2**62, -1)


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """Return the two parts of a merge, which older files have as one string with a space."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise refusal(f"has a merge that is not of two parts: {str(merge)[:100]!r}")
    return parts[0], parts[1]
