"""Numbers of tokens that a request leaves of a vocabulary."""

import math

from core.engine.architectures.description import ModelDescription
from core.engine.cuts.cut import Cut
from core.engine.options.axes import MethodParameters
from core.engine.removals.vocabulary.sizes import vocabulary_size
from secateur_wire.errors import InvalidParameters, InvalidRequest, InvalidSparsity
from secateur_wire.job_body import VocabularyChoice

_ROUNDING = 1e-6
"""Tolerance, in tokens, of a number of tokens that follows from a share."""


def planned_tokens(cut: Cut) -> int | None:
    """Return the number of tokens that a cut of the vocabulary alone leaves; None where the texts decide.

    Raises InvalidSparsity for one out of reach, and what `tokens_left` raises.
    """
    choice = choice_of(cut.options)
    if cut.sparsity:
        return tokens_at(cut, choice.round_to)
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


def too_few_tokens(tokens: int, least: int, param: str) -> InvalidRequest:
    """Return the error for a number of tokens below the least that must stay; `param` is its place in the body."""
    return InvalidRequest(
        f"{param.rpartition('.')[2]}: {tokens:,} is less than the {least:,} tokens that must stay: bytes, special and "
        "added tokens, and those of `keep`, of the chat template and of the config, with the tokens that they are "
        f"merged from; ask for {least:,} or more",
        param=param,
    )


def rounded_up(number: int, multiple: int, most: int) -> int:
    """Return the smallest multiple that is no smaller than a number; at most `most`."""
    return min(most, math.ceil(number / multiple) * multiple)


def tokens_at(cut: Cut, multiple: int) -> int:
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


def choice_of(options: MethodParameters) -> VocabularyChoice:
    """Return which tokens stay, from the parameters of a method that removes tokens."""
    choice = options.vocabulary_choice
    assert choice is not None
    return choice
