"""Tokens of the vocabulary: the number that stays, and the size that is left."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.cuts.cut import Cut
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal
from core.engine.removals.vocabulary.counts import choice_of, planned_tokens, tokens_left
from core.engine.removals.vocabulary.sizes import OFFER, reduced_description, vocabulary_size
from secateur_wire.metrics import Sparsity


class VocabularyRemoval(Removal):
    """Removal of tokens, with their rows of the embedding and the head."""

    def check(self, cut: Cut) -> RemovalPlan:
        planned_tokens(cut)
        return RemovalPlan()

    def sparsity_of(self, cut: Cut) -> float | None:
        description = cut.language_model
        tokens = tokens_left(description, choice_of(cut.options), "parameters")
        if tokens is None:
            return None
        return 1 - reduced_description(description, tokens).parameters / description.parameters

    def reachable(self, cut: Cut) -> Sequence[float]:
        size, choice = vocabulary_size(cut.language_model), choice_of(cut.options)
        least = min(choice.round_to, size.tokens)
        return [0.0, (size.parameters - least * size.row) / cut.description.parameters]

    def steps(self, cut: Cut) -> Sequence[float]:
        return ()

    def latency_refusal(self) -> str | None:
        return "tokens are not removed to meet a latency: use target.parameters, target.bytes or parameters.tokens"

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        return f"Tokens were removed from the vocabulary, with {share.model:.2%} of all parameters; no layer changed."


INFO = VocabularyRemoval("vocabulary", 50, reads_texts=True, offer=OFFER)
