"""Whole experts: the number that each layer keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.architectures.description import require_structure
from core.engine.cuts.cut import Cut
from core.engine.cuts.removal import Removal
from core.engine.cuts.report import SharePanel
from core.engine.removals.experts.counts import ExpertPlan, expert_sparsities, kept_experts
from core.engine.removals.experts.report import SECTION, token_panels


class ExpertRemoval(Removal):
    """Removal of whole experts, the same number from each layer."""

    def check(self, cut: Cut) -> ExpertPlan:
        description = cut.language_model
        structure = require_structure(description)
        return ExpertPlan(left=kept_experts(description, structure, cut.sparsity, at_least=cut.at_least))

    def reachable(self, cut: Cut) -> Sequence[float]:
        return expert_sparsities(cut.language_model, require_structure(cut.language_model))

    def latency_refusal(self) -> str | None:
        return (
            "each token goes to as many experts as before, so removing experts does not change the latency as "
            "needed: use target.parameters or target.bytes"
        )

    def panels(self, sections: Mapping[str, Any]) -> Sequence[SharePanel]:
        return token_panels(sections.get(SECTION, ()))


INFO = ExpertRemoval("experts", 40)
