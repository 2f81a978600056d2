"""Vocabularies of words: WordPiece, which takes the longest prefix first, and WordLevel, which knows whole words."""

from collections.abc import Iterable, Mapping
from typing import Any

from core.engine.removals.vocabulary.tokenizers.tokenizer import Tokenizer, without_others
from secateur_wire.base import JsonObject


class WordLevel(Tokenizer):
    """Vocabulary of whole words: a word is a token, or unknown. A word that was unknown stays unknown."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(content, content["model"]["vocab"])

    def closure(self, ids: Iterable[int]) -> frozenset[int]:
        """Return the ids: a token needs no other."""
        return frozenset(ids)

    def is_reachable(self, token: int) -> bool:
        """Return True: every word can be a token."""
        return True

    def rank(self, token: int) -> int:
        """Return the id: vocabularies of words are numbered in the order of their training."""
        return token

    def _always(self) -> Iterable[int]:
        unknown = self._vocabulary.get(self.model["unk_token"])
        return () if unknown is None else (unknown,)

    def _reduced_model(self, numbers: Mapping[int, int]) -> JsonObject:
        return dict(self.model) | {"vocab": without_others(self._vocabulary, numbers)}


class WordPiece(WordLevel):
    """WordPiece (Wu et al., 2016): from the left, the longest token that the rest of the word begins with.

    If the longest of all tokens is kept, it is the longest of the kept ones too. Words that are unknown to the dense
    tokenizer are left out of the promise: once a longer prefix is gone, such a word may come apart into known pieces.
    """

    def rank(self, token: int) -> int:
        """Return the id, as for words; characters have rank 0, since a word without one of them may be unknown."""
        text = self.tokens[token].removeprefix(self.model["continuing_subword_prefix"])
        return 0 if len(text) == 1 else token
