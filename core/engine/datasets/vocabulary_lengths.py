"""Lengths of a text in two vocabularies, and the words that take more tokens in the new one."""

from collections import Counter
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from core.engine.datasets.token_windows import count_tokens
from secateur_wire.reports import LongerWord, TextLength

_SHOWN = 20
_LONGEST = 60
"""Characters of a word that are shown."""


def text_length(documents: Iterable[str], dense: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> TextLength:
    """Return the tokens of a text in both vocabularies, and the words that cost most tokens.

    Words are what spaces separate, each tokenized after a space.
    """
    before = after = 0
    words: Counter[str] = Counter()
    for document in documents:
        before += count_tokens(document, dense)
        after += count_tokens(document, new)
        words.update(document.split())
    named = list(words)
    if before == after or not named:
        return TextLength(dense=before, pruned=after)
    lengths = [_lengths(named, tokenizer) for tokenizer in (dense, new)]
    longer = [
        LongerWord(word=word[:_LONGEST], count=words[word], dense=old, pruned=now)
        for word, old, now in zip(named, *lengths, strict=True)
        if now > old
    ]
    longer.sort(key=lambda each: (-(each.pruned - each.dense) * each.count, each.word))
    return TextLength(dense=before, pruned=after, words=longer[:_SHOWN])


def _lengths(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids = tokenizer([f" {word}" for word in words], add_special_tokens=False, verbose=False)["input_ids"]
    return [len(each) for each in ids]
