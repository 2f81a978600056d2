"""Sizes of a model with fewer tokens, from its description alone."""

from dataclasses import dataclass
from typing import Final

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.structure import VocabularyTable
from secateur_wire.errors import UnsupportedArchitecture, UnusableModel

OFFER: Final = "vocabulary"
"""Name of the removal among the offers that an architecture may refuse."""


@dataclass(frozen=True)
class VocabularySize:
    """Share of a model that its tokens have: `parameters` and `bytes` of all, and `row` parameters of each token.

    Embeddings and a head that is tied to them count once.
    """

    tokens: int
    parameters: int
    bytes: int
    row: int


def vocabulary_size(description: ModelDescription) -> VocabularySize:
    """Return what the tokens of a model have; raises UnsupportedArchitecture where they cannot go, with the reason."""
    tables = _tables(description)
    return VocabularySize(
        tokens=description.vocabulary_size,
        parameters=sum(each.tokens * each.parameters for each in tables),
        bytes=sum(each.tokens * each.bytes for each in tables),
        row=sum(each.parameters for each in tables),
    )


def reduced_description(description: ModelDescription, tokens: int) -> ModelDescription:
    """Return the description of a model that keeps this number of tokens; raises as `vocabulary_size` does.

    Where a table has entries for the first tokens alone, it
    is counted as if these tokens stayed.
    """
    before = _tables(description)
    after = [each.of_tokens(tokens) for each in before]
    removed = [(old, old.tokens - new.tokens) for old, new in zip(before, after, strict=True)]
    return description.model_copy(
        update={
            "parameters": description.parameters - sum(each.parameters * number for each, number in removed),
            "bytes": description.bytes - sum(each.bytes * number for each, number in removed),
            "vocabulary_size": tokens,
            "vocabulary": after,
        }
    )


def _tables(description: ModelDescription) -> list[VocabularyTable]:
    """Return the tables of a model; raises UnsupportedArchitecture, UnusableModel for an earlier version's model."""
    family = description.known_as
    reason = description.refusal(OFFER)
    if reason is not None:
        raise UnsupportedArchitecture(f"{family.architecture} cannot lose tokens: {reason}", param="model")
    if description.vocabulary is None or (description.discovered is not None and not family.vocabulary):
        raise UnusableModel(
            "the model was registered or made by an older version, which did not record which of its tensors have an "
            "entry for each token: register it again under another name",
            param="model",
        )
    return description.vocabulary
