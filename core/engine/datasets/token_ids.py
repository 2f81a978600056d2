"""Token ids of a text, by a model's tokenizer, without special tokens around it."""

from transformers import PreTrainedTokenizerBase

from core.panics import is_panic
from secateur_wire.errors import UnusableModel


def token_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a text; raises UnusableModel where the tokenizer fails.

    The library's regular expressions backtrack up to a limit; beyond it the library panics, which is not an Exception.
    """
    return encoded(text, tokenizer)[0]


def encoded(text: str, tokenizer: PreTrainedTokenizerBase, *, with_starts: bool = False) -> tuple[list[int], list[int]]:
    """Return the tokens of a text and, with `with_starts`, the place of each in the text; raises UnusableModel."""
    if with_starts and not tokenizer.is_fast:
        raise UnusableModel(
            "the model's tokenizer does not tell for which text a token stands, so that the assistant's tokens are not "
            "known: count all tokens",
            param="model",
        )
    try:
        encoding = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=with_starts)
    except BaseException as error:
        if not is_panic(error):
            raise
        raise UnusableModel(
            f"the model's tokenizer fails on a text of {len(text)} characters: {str(error)[:200]}", param="model"
        ) from error
    return encoding["input_ids"], [start for start, _ in encoding["offset_mapping"]] if with_starts else []
