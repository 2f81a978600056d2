"""Tokens of the vocabulary: the number that stays, and the size that is left."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.architectures.description import ModelDescription
from core.engine.cuts.cut import Cut
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal
from core.engine.options.base import MethodParameters
from core.engine.removals.vocabulary.sizes import OFFER, reduced_description, vocabulary_size
from secateur_wire.errors import InvalidParameters, InvalidSparsity
from secateur_wire.job_body import VocabularyChoice
from secateur_wire.metrics import Sparsity

_ROUNDING = 1e-6
"""Tolerance, in tokens, of a number of tokens that follows from a share."""


class VocabularyRemoval(Removal):
    """Removal of tokens, with their rows of the embedding and the head."""

    def check(self, cut: Cut) -> RemovalPlan:
        planned_tokens(cut)
        return RemovalPlan()

    def sparsity_of(self, cut: Cut) -> float | None:
        description = cut.language_model
        tokens = tokens_left(description, _choice(cut.options), "parameters")
        if tokens is None:
            return None
        return 1 - reduced_description(description, tokens).parameters / description.parameters

    def reachable(self, cut: Cut) -> Sequence[float]:
        size, choice = vocabulary_size(cut.language_model), _choice(cut.options)
        least = min(choice.round_to, size.tokens)
        return [0.0, (size.parameters - least * size.row) / cut.description.parameters]

    def steps(self, cut: Cut) -> Sequence[float]:
        return ()

    def least_removed(self, cut: Cut) -> int:
        if not cut.sparsity:
            return 0
        tokens = _tokens_at(cut, _choice(cut.options).round_to)
        return cut.description.parameters - reduced_description(cut.language_model, tokens).parameters

    def latency_refusal(self) -> str | None:
        return "tokens are not removed to meet a latency: use target.parameters, target.bytes or parameters.tokens"

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        return f"Tokens were removed from the vocabulary, with {share.model:.2%} of all parameters; no layer changed."


def planned_tokens(cut: Cut) -> int | None:
    """Return the number of tokens that a cut of the vocabulary alone leaves; None where the texts decide.

    Raises InvalidSparsity for one out of reach, and what `tokens_left` raises.
    """
    choice = _choice(cut.options)
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
    rounded = rounded_up(number, choice.round_to, size.tokens)
    if rounded >= size.tokens:
        given = "tokens" if choice.amount is None else "amount"
        raise InvalidParameters(
            f"{param}.{given}: {rounded:,} tokens would stay, and the model has {size.tokens:,}, so that nothing would "
            f"be removed: let fewer stay, or use 'auto'",
            param=f"{param}.{given}",
        )
    return rounded


def rounded_up(number: int, multiple: int, most: int) -> int:
    """Return the smallest multiple that is no smaller than a number; at most `most`."""
    return min(most, math.ceil(number / multiple) * multiple)


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


def _choice(options: MethodParameters) -> VocabularyChoice:
    choice = options.vocabulary_choice
    assert choice is not None
    return choice


INFO = VocabularyRemoval("vocabulary", 50, reads_texts=True, offer=OFFER)
