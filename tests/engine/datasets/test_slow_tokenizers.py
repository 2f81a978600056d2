"""Tokenizer files that are made to take for ever: the library gives up, and the job is told so."""

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from core.engine.datasets.token_ids import token_ids
from secateur_wire.errors import UnusableModel

TRIES = "(a+)+$"
"""Tries every way to part a row of a's, where something else follows."""


def tokenizer_with(**parts: object) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"?": 0, "b": 1}, unk_token="?"))
    for name, part in parts.items():
        setattr(backend, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": pre_tokenizers.Split(Regex(TRIES), "isolated")},
        {"normalizer": normalizers.Replace(Regex(TRIES), "b")},
    ],
    ids=["pre_tokenizer", "normalizer"],
)
def test_a_pattern_that_backtracks_without_end_is_an_error_of_the_model(parts: dict[str, object]) -> None:
    tokenizer = tokenizer_with(**parts)
    assert token_ids("a a a", tokenizer)
    with pytest.raises(UnusableModel, match=r"the model's tokenizer fails on a text of 41 characters: .*retry-limit"):
        token_ids("a" * 40 + "b", tokenizer)
