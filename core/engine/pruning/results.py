"""Results of a pruning pass: rows of the report, perplexities, and the positions of the pruned tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.cuts import WorthTable
from core.engine.evaluation.perplexity import MeasuredPerplexity
from secateur_wire.base import JsonObject


@dataclass(frozen=True)
class LayerRow:
    """Row of one linear layer in the report.

    `reconstruction_error` is ‖(W−Ŵ)X‖/‖WX‖ on its inputs in this run. `refit`, `ridge` and `conjugate_gradient` are α,
    λ and the steps of its compensation, given or chosen.
    """

    name: str
    layer: int
    out_features: int
    in_features: int
    target: float
    zeros: int
    sparsity: float
    reconstruction_error: float | None
    refit: float | None = None
    ridge: float | None = None
    conjugate_gradient: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExpertRow(LayerRow):
    """Row in the report for a stack of a block's `experts`: zeros and error of all its matrices.

    `reconstruction_error` is on the tokens routed to each, weighted by their gates where the method minimises it;
    `refit` is the mean over the experts.
    """

    experts: int


@dataclass(frozen=True)
class RoutingRow:
    """Row in the report for one decoder layer's routing: the calibration tokens that reached each expert.

    `pooled` are the experts that too few tokens reached, so that they were pruned with the statistics of all tokens.
    """

    name: str
    layer: int
    tokens: tuple[int, ...]
    pooled: tuple[int, ...]

    @property
    def summary(self) -> str:
        """Return in words the experts that were pruned with all tokens."""
        few = ", ".join(map(str, self.pooled[:8])) + (" …" if len(self.pooled) > 8 else "")
        return (
            f"{self.name}: {len(self.pooled)} of {len(self.tokens)} experts ({few}) were reached by too few "
            "calibration tokens and were pruned by the statistics of all of them."
        )


@dataclass(frozen=True)
class UnitRow:
    """Row in the report for the heads or channels of one decoder layer: numbers before and after, parameters removed.

    `kind` is 'heads' (KV groups or query heads, as the job chose), 'channels' or 'layer'. `cost` is the increase of the
    loss in nats per token that the method expected from the removal, where it estimates one.
    """

    name: str
    layer: int
    kind: str
    before: int
    after: int
    removed_parameters: int
    cost: float | None = None


@dataclass(frozen=True)
class PerplexityPair:
    """Perplexity of the dense and the pruned model on the same windows, with the standard error of their ratio.

    `bits_ratio_stderr` is the standard error of the ratio of their bits per byte. `dense_losses` are the dense model's
    mean losses of the windows in nats, `pruned_losses` and `rounded_losses` those of the other models. `rounded` is the
    dense model's perplexity in the dtype in which the pruned model is saved; None where both dtypes are equal, or
    the pass was given another model.
    `rounded_divergence` is the mean KL divergence of the rounded model's predictions in nats, where it was measured.
    """

    dense: float
    pruned: float
    ratio_stderr: float | None = None
    bits_ratio_stderr: float | None = None
    dense_losses: tuple[float, ...] = ()
    pruned_losses: tuple[float, ...] = ()
    rounded: float | None = None
    rounded_divergence: float | None = None
    rounded_losses: tuple[float, ...] = ()

    @property
    def measured_dense(self) -> MeasuredPerplexity:
        return MeasuredPerplexity(self.dense, self.dense_losses)

    @property
    def measured_rounded(self) -> MeasuredPerplexity | None:
        if self.rounded is None:
            return None
        return MeasuredPerplexity(self.rounded, self.rounded_losses, self.rounded_divergence)


@dataclass(frozen=True)
class PruneResult:
    """Result of a pruning pass.

    `files` hold the tensors of the blocks, and of the head where it was pruned, under the names by which they are
    saved. `unchanged` are the positions of all other tensors in the source. `config` is the new config.json where it
    differs from the source's. `removed` counts weights that are zero or gone, `prunable` those that could have been.
    `verification` has a few tokens and their logits, which the saved model must reproduce. `refits` is the α chosen for
    each fitted linear layer that is left after units were removed, by its name in the source. `sections` are the
    report's rows of the kind of removal, by the names of their sections. `micro_batches` is the history of their sizes,
    where memory ran out. `worth` is the table of the layers' variants where a limit of cost decided.
    """

    layers: Sequence[LayerRow | UnitRow]
    sparsities: tuple[float, ...]
    removed: int
    prunable: int
    perplexity: dict[str, PerplexityPair]
    notes: list[str]
    files: list[Path]
    unchanged: list[TensorEntry]
    config: dict[str, Any] | None
    verification: Path
    resumed_from: int
    refits: Mapping[str, float] = field(default_factory=dict)
    sections: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    micro_batches: Sequence[JsonObject] = ()
    worth: WorthTable | None = None
