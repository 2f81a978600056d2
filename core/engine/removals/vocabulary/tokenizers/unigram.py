"""Unigram language model (Kudo, 2018): the segmentation with the highest sum of scores."""

from collections.abc import Iterable, Mapping
from typing import Any

from core.engine.removals.vocabulary.tokenizers.refusal import refusal
from core.engine.removals.vocabulary.tokenizers.spelling import byte_token
from core.engine.removals.vocabulary.tokenizers.tokenizer import Tokenizer
from secateur_wire.base import JsonObject


class Unigram(Tokenizer):
    """Unigram model: every segmentation of a word has the sum of its pieces' scores, and the best one is taken.

    The segmentations with kept pieces are some of the dense ones, so the best dense one stays the best if its pieces
    are kept. Of equal ones the library takes the first in a fixed order, which is the same. An unknown character has
    the least score of the vocabulary, less ten, so the piece of the least score stays. A character that is no piece any
    more has that score too, which is less than it had before, so that no worse segmentation wins by it.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        model = content["model"]
        self._pieces = [(piece, float(score)) for piece, score in model["vocab"]]
        vocabulary = {piece: number for number, (piece, _) in enumerate(self._pieces)}
        if len(vocabulary) < len(self._pieces):
            raise refusal("has the same piece twice")
        super().__init__(content, vocabulary)
        best = sorted(range(len(self._pieces)), key=lambda number: -self._pieces[number][1])
        self._ranks = {number: rank for rank, number in enumerate(best)}

    def closure(self, ids: Iterable[int]) -> frozenset[int]:
        """Return the ids: a piece needs no other."""
        return frozenset(ids)

    def is_reachable(self, token: int) -> bool:
        """Return True: no piece is known to be part of no best segmentation."""
        return True

    def rank(self, token: int) -> int:
        """Return the place of the piece by its score, which is the logarithm of its probability.

        Characters have rank 0 where there are no bytes to fall back on: without its piece a character is unknown.
        """
        is_last_resort = len(self.tokens[token]) == 1 and not self.model.get("byte_fallback")
        return 0 if is_last_resort else self._ranks.get(token, 0)

    def _always(self) -> Iterable[int]:
        unknown = self.model.get("unk_id")
        least = min(range(len(self._pieces)), key=lambda number: self._pieces[number][1])
        fallback = [self._vocabulary[each] for each in map(byte_token, range(256)) if each in self._vocabulary]
        return [least, *fallback, *(() if unknown is None else (unknown,))]

    def _reduced_model(self, numbers: Mapping[int, int]) -> JsonObject:
        unknown = self.model.get("unk_id")
        return dict(self.model) | {
            "vocab": [each for number, each in enumerate(self.model["vocab"]) if number in numbers],
            "unk_id": None if unknown is None else numbers[unknown],
        }
