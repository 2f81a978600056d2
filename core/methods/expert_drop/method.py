"""Expert drop by REAP (Lasby et al. 2025, arXiv:2510.13999), by how often experts are chosen, or at random."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import EXPERTS_KIND
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.models.experts import ExpertStacks, RoutedTokens
from core.engine.models.hooks import removed_after
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.units.block_tokens import BlockToPrune, PrunedBlock, PrunedTokens, TokensAtBlock
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.methods.expert_drop.info import ExpertDropParameters

_NOT_NORMALISED = (
    "The gates of a token are its router's softmax over all experts and are not normalised, so that each is larger "
    "with fewer experts: what tokens get changes even where none of their own experts went."
)


@dataclass
class _Scores:
    """Sums over the tokens that are routed to each expert: their number, and of gate times length of the output."""

    tokens_E: Tensor
    given_E: Tensor


class ExpertDrop(BlockUnitMethod):
    """Score S_e = mean over the tokens x routed to e of g_e(x)·‖f_e(x)‖ (REAP); the highest are kept.

    An expert that no token reaches has the score 0. Where experts lie in groups, as many of each go.
    """

    weight_reads = 0

    def __init__(self, parameters: ExpertDropParameters) -> None:
        self.score = parameters.score
        self.seed = parameters.seed

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        structure, experts = context.structure, context.folder.family.experts
        assert context.experts is not None and experts is not None and experts.routing is not None
        layers = {
            layer: LayerCounts.of(
                structure,
                layer,
                context.kinds,
                {kind.name: min(kind.units(shape), context.experts) for kind in context.kinds},
            )
            for layer, shape in enumerate(structure.layers)
        }
        loses = any(each.removed for each in layers.values())
        return UnitCounts(layers=layers, notes=[_NOT_NORMALISED] if loses and not experts.routing.normalised else [])

    def prune_block(
        self, block: BlockToPrune, dense: TokensAtBlock, pruned: PrunedTokens | None, log: Callable[[str], None]
    ) -> PrunedBlock:
        if not block.counts.removed:
            return PrunedBlock({})
        experts = block.shape.sizes[EXPERTS_KIND]
        if self.score == "random":
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + block.layer)
            return PrunedBlock(block.keep_highest({EXPERTS_KIND: torch.rand(experts, generator=generator)}))
        sums = self._sums(block, dense)
        score_E = sums.tokens_E if self.score == "frequency" else sums.given_E / sums.tokens_E.clamp(min=1)
        kept = block.keep_highest({EXPERTS_KIND: score_E})
        return PrunedBlock(
            kept,
            notes=[self._note(block, kept[EXPERTS_KIND], score_E, sums.tokens_E)],
            scores={EXPERTS_KIND: score_E.tolist()},
        )

    def _sums(self, block: BlockToPrune, dense: TokensAtBlock) -> _Scores:
        """Run the dense tokens and return the sums over those of each expert."""
        experts = block.family.experts
        assert experts is not None
        stacks = ExpertStacks(dense.block, experts)
        sums = _Scores(*(torch.zeros(len(stacks), dtype=torch.float64) for _ in range(2)))

        def arrive(module: nn.Module, arguments: tuple[object, ...], keywords: Mapping[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None
            for expert in range(len(stacks)):
                rows_N, gates_N = tokens.of_expert(expert)
                sums.tokens_E[expert] += len(rows_N)
                if len(rows_N) and self.score == "reap":
                    output_NH = stacks.output(stacks.inner(tokens.hidden_NH[rows_N], expert), expert)
                    lengths_N = torch.linalg.vector_norm(output_NH.float(), dim=1)
                    sums.given_E[expert] += float((gates_N.float().abs() * lengths_N).sum(dtype=torch.float64))

        with removed_after([stacks.module.register_forward_pre_hook(arrive, with_kwargs=True)]):
            dense.run()
        return sums

    def _note(self, block: BlockToPrune, kept: list[int], score_E: Tensor, tokens_E: Tensor) -> str:
        """Return which experts went and why, for the report."""
        removed = [expert for expert in range(len(score_E)) if expert not in set(kept)]
        shown = ", ".join(f"{expert} ({score_E[expert]:.4g})" for expert in removed[:16]) + (
            " …" if removed[16:] else ""
        )
        share = float(tokens_E[removed].sum() / tokens_E.sum().clamp(min=1))
        return (
            f"Layer {block.layer}: experts {shown} went, by {self.score}; the least score of those kept is "
            f"{float(score_E[kept].min()):.4g}. They had {share:.1%} of the routed tokens."
        )
