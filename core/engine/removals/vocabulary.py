"""Vocabulary: a language model loses tokens, with their rows of the embedding and the head."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.structure import VocabularyTable
from core.engine.cuts import Cut, Removal, RemovalPlan
from core.engine.options.axes import MethodParameters
from secateur_wire.errors import (
    InvalidParameters,
    InvalidRequest,
    InvalidSparsity,
    UnsupportedArchitecture,
    UnusableModel,
)
from secateur_wire.job_body import VocabularyChoice
from secateur_wire.metrics import Sparsity

OFFER: Final = "vocabulary"
"""Name of the removal among the offers that an architecture may refuse."""
_ROUNDING: Final = 1e-6
"""Tolerance, in tokens, of a number of tokens that follows from a share."""


class VocabularyOptions(MethodParameters, VocabularyChoice):
    """Options of methods that remove tokens from the vocabulary: those of the body's field `vocabulary`."""


class VocabularyRemoval(Removal):
    """Removal of tokens, with their rows of the embedding and the head."""

    def check(self, cut: Cut) -> RemovalPlan:
        planned_tokens(cut)
        return RemovalPlan()

    def reachable(self, cut: Cut) -> Sequence[float]:
        size, choice = vocabulary_size(cut.language_model), _choice_of(cut)
        least = min(choice.round_to, size.tokens)
        return [0.0, (size.parameters - least * size.row) / cut.description.parameters]

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        return f"Tokens were removed from the vocabulary, with {share.model:.2%} of all parameters; no layer changed."


VOCABULARY = VocabularyRemoval(
    "vocabulary",
    reads_texts=True,
    is_fine=True,
    offer=OFFER,
    latency_refusal="tokens are not removed to meet a latency: use target.parameters, target.bytes or "
    "parameters.tokens",
)


def _choice_of(cut: Cut) -> VocabularyChoice:
    choice = cut.options.vocabulary_choice
    assert choice is not None
    return choice


def sparsity_of_tokens(cut: Cut) -> float | None:
    """Return the share of the parameters that the options remove; None where they leave it to the texts.

    The sparsity of `cut` is ignored. Raises an InvalidRequest that names the fault.
    """
    description = cut.language_model
    tokens = tokens_left(description, _choice_of(cut), "parameters")
    if tokens is None:
        return None
    return 1 - reduced_description(description, tokens).parameters / description.parameters


def planned_tokens(cut: Cut) -> int | None:
    """Return the number of tokens that a cut of the vocabulary alone leaves; None where the texts decide.

    Raises InvalidSparsity for one out of reach, and what `tokens_left` raises.
    """
    choice = _choice_of(cut)
    if cut.sparsity:
        return _tokens_at(cut, choice.round_to)
    return tokens_left(cut.language_model, choice, "parameters")


def tokens_left(description: ModelDescription, choice: VocabularyChoice, param: str) -> int | None:
    """Return the number of tokens that a choice leaves, a multiple of `round_to`; None where the texts decide.

    Raises UnsupportedArchitecture where tokens cannot go, and InvalidParameters where none would; `param` is the place
    of the choice in the body.
    """
    size = vocabulary_size(description)
    number = choice.number_of(size.tokens)
    if number is None:
        return None
    rounded = min(size.tokens, math.ceil(number / choice.round_to) * choice.round_to)
    if rounded >= size.tokens:
        given = "tokens" if choice.amount is None else "amount"
        raise InvalidParameters(
            f"{param}.{given}: {rounded:,} tokens would stay, and the model has {size.tokens:,}, so that nothing would "
            f"be removed: let fewer stay, or use 'auto'",
            param=f"{param}.{given}",
        )
    return rounded


def too_few_tokens(tokens: int, least: int, param: str) -> InvalidRequest:
    """Return the error for a number of tokens below the least that must stay; `param` is its place in the body."""
    return InvalidRequest(
        f"{param.rpartition('.')[2]}: {tokens:,} is less than the {least:,} tokens that must stay: bytes, special and "
        "added tokens, and those of `keep`, of the chat template and of the config, with the tokens that they are "
        f"merged from; ask for {least:,} or more",
        param=param,
    )


def _tokens_at(cut: Cut, multiple: int) -> int:
    """Return the multiple of tokens nearest to the cut's sparsity, or, with `at_least`, none that removes less.

    Raises InvalidSparsity where that many tokens cannot go.
    """
    size = vocabulary_size(cut.language_model)
    left = size.tokens - cut.sparsity * cut.description.parameters / size.row
    steps = (left + _ROUNDING) / multiple
    tokens = multiple * (math.floor(steps) if cut.at_least else round(steps))
    if tokens < multiple or tokens >= size.tokens + multiple:
        most = (size.parameters - multiple * size.row) / cut.description.parameters
        raise InvalidSparsity(
            f"sparsity {cut.sparsity:g}: the vocabulary has {size.parameters / cut.description.parameters:.4f} of the "
            f"model's parameters, so at most {most:.4f} can be removed",
            param="sparsity",
        )
    return min(tokens, size.tokens)


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

    Where a table has entries for the first tokens alone, it is counted as if these tokens stayed.
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
