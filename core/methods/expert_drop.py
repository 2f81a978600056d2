"""Expert drop by REAP (Lasby et al. 2025, arXiv:2510.13999), by routing frequency, or at random."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.engine.architectures.architecture import EXPERTS_KIND
from core.engine.models.experts import ExpertStacks, RoutedTokens
from core.engine.pruning.units.method import (
    BlockToPrune,
    PrunedBlock,
    PrunedTokens,
    TokensAtBlock,
    UnitMethod,
    UnitSelectionContext,
)
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.experts import ExpertPlan
from core.methods.descriptions.structured import ExpertDropParameters

_NOT_NORMALISED = (
    "The gates of a token are its router's softmax over all experts and are not normalised, so that each is larger "
    "with fewer experts: what tokens get changes even where none of their own experts went."
)

_COLUMNS = 2**16
"""Number of weights of each expert that are compared at a time."""


@dataclass
class _Scores:
    """Sums over the tokens that are routed to each expert: the number of tokens, and the sum of gate · ‖output‖."""

    tokens_E: Tensor
    given_E: Tensor


class ExpertDrop(UnitMethod):
    """Expert drop; an expert's score is the mean of g_e(x)·‖f_e(x)‖ over the tokens x routed to it (REAP).

    The experts of highest score are kept. An expert that no token reaches has the score 0. Where experts lie in groups,
    each group loses the same number.

    With `merge`, each expert that goes is merged into the kept expert k whose weights have the largest cosine with its
    own: W_k = Σ n_e·W_e / Σ n_e over k and the experts merged into it. n_e is the number of tokens routed to e.
    Channels are averaged by position.
    """

    weight_reads = 0
    reads = "dense"

    def __init__(self, parameters: ExpertDropParameters) -> None:
        self.score = parameters.score
        self.merge = parameters.merge
        self.seed = parameters.seed

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        experts = context.folder.family.experts
        assert isinstance(context.removal, ExpertPlan) and experts is not None and experts.routing is not None
        layers = context.removal.remaining_counts(context.folder.description)
        loses = any(each.removed for each in layers.values())
        return UnitCounts(layers=layers, notes=[_NOT_NORMALISED] if loses and not experts.routing.normalised else [])

    def prune_block(self, block: BlockToPrune, dense: TokensAtBlock | None, pruned: PrunedTokens | None) -> PrunedBlock:
        if not block.counts.removed:
            return PrunedBlock({})
        assert dense is not None
        experts = block.shape.sizes[EXPERTS_KIND]
        if self.score == "random":
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + block.layer)
            kept = block.keep_highest({EXPERTS_KIND: torch.rand(experts, generator=generator)})
            return (
                self._merged(block, kept[EXPERTS_KIND], self._sums(block, dense)) if self.merge else PrunedBlock(kept)
            )
        sums = self._sums(block, dense)
        score_E = sums.tokens_E if self.score == "frequency" else sums.given_E / sums.tokens_E.clamp(min=1)
        kept = block.keep_highest({EXPERTS_KIND: score_E})
        merged = self._merged(block, kept[EXPERTS_KIND], sums) if self.merge else PrunedBlock(kept)
        return replace(
            merged,
            notes=[self._note(block, kept[EXPERTS_KIND], score_E, sums.tokens_E), *merged.notes],
            scores={EXPERTS_KIND: score_E.tolist()},
        )

    def _sums(self, block: BlockToPrune, dense: TokensAtBlock) -> _Scores:
        """Run the dense tokens and return the sums over the tokens of each expert."""
        experts = block.family.experts
        assert experts is not None
        stacks = ExpertStacks(dense.block, experts)
        sums = _Scores(*(torch.zeros(len(stacks), dtype=torch.float64) for _ in range(2)))

        def add(tokens: RoutedTokens) -> None:
            for expert in range(len(stacks)):
                rows_N, gates_N = tokens.of_expert(expert)
                sums.tokens_E[expert] += len(rows_N)
                if len(rows_N) and self.score == "reap":
                    output_NH = stacks.output(stacks.inner(tokens.hidden_NH[rows_N], expert), expert)
                    lengths_N = torch.linalg.vector_norm(output_NH.float(), dim=1)
                    sums.given_E[expert] += float((gates_N.float().abs() * lengths_N).sum(dtype=torch.float64))

        with dense.routed(stacks, add):
            dense.run()
        return sums

    def _merged(self, block: BlockToPrune, kept: list[int], sums: _Scores) -> PrunedBlock:
        """Merge each expert that goes into the most similar kept expert."""
        experts = block.family.experts
        assert experts is not None
        stacks = [block.tensors[experts.parameter(each)] for each in experts.matrices]
        cosine_EE = _cosines(stacks)
        groups: dict[int, list[int]] = {expert: [expert] for expert in kept}
        for expert in sorted(set(range(len(cosine_EE))) - set(kept)):
            groups[kept[int(cosine_EE[expert, kept].argmax())]].append(expert)
        names = [experts.parameter(each) for each in experts.matrices]
        names += [f"{experts.module}.{each.bias}" for each in experts.matrices if each.bias is not None]
        changed = {name: block.tensors[name][kept] for name in names}
        pairs = []
        for place, (expert, members) in enumerate(groups.items()):
            tokens_M = sums.tokens_E[members]
            if len(members) == 1 or not bool(tokens_M.sum() > 0):
                continue
            pairs.append(f"{', '.join(map(str, members[1:]))} into {expert}")
            for name in names:
                mean = torch.zeros_like(changed[name][place], dtype=torch.float32)
                for member, share in zip(members, (tokens_M / tokens_M.sum()).tolist(), strict=True):
                    mean.add_(block.tensors[name][member].float(), alpha=share)
                changed[name][place] = mean.to(changed[name].dtype)
        notes = [f"Layer {block.layer}: merged were experts {'; '.join(pairs)}."] if pairs else []
        return PrunedBlock({EXPERTS_KIND: kept}, changed, notes=notes)

    def _note(self, block: BlockToPrune, kept: list[int], score_E: Tensor, tokens_E: Tensor) -> str:
        """Return a note for the report that names the removed experts and the reason."""
        removed = [expert for expert in range(len(score_E)) if expert not in set(kept)]
        shown = ", ".join(f"{expert} ({score_E[expert]:.4g})" for expert in removed[:16]) + (
            " …" if removed[16:] else ""
        )
        share = float(tokens_E[removed].sum() / tokens_E.sum().clamp(min=1))
        return (
            f"Layer {block.layer}: experts {shown} went, by {self.score}; the least score of those kept is "
            f"{float(score_E[kept].min()):.4g}. They had {share:.1%} of the routed tokens."
        )


def _cosines(stacks: Sequence[Tensor]) -> Tensor:
    """Return the cosine between the weights of each two experts, -1 where one has only zeros: [E, E]."""
    products_EE = torch.zeros(len(stacks[0]), len(stacks[0]), dtype=torch.float64, device=stacks[0].device)
    for stack in stacks:
        for columns_EN in stack.flatten(1).split(_COLUMNS, dim=1):  # limits the float32 copy to a part of the weights
            products_EE += columns_EN.float() @ columns_EN.float().T
    lengths_E = products_EE.diagonal().sqrt()
    return (products_EE / (lengths_E[:, None] * lengths_E)).nan_to_num(nan=-1.0).cpu()
