"""Results of a pass that prunes: rows of the report, perplexities, and where the pruned tensors lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.evaluation.perplexity import MeasuredPerplexity
from secateur_wire.base import JsonObject


@dataclass(frozen=True)
class LayerRow:
    """One linear layer in the report.

    `reconstruction_error` is ‖(W−Ŵ)X‖/‖WX‖ on the inputs it saw in this run; `refit`, `ridge` and `conjugate_gradient`
    are α, λ and steps of its compensation, given or chosen.
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
    """The stack of one matrix of each of a block's `experts` in the report: its zeros and error are those of all.

    `reconstruction_error` is on the tokens routed to each, weighted by their gates where the method minimises it;
    `refit` is the mean over the experts.
    """

    experts: int


@dataclass(frozen=True)
class RoutingRow:
    """The routing in one decoder layer in the report: calibration tokens that reached each expert.

    `pooled` are those experts that too few reached, so that they were pruned by the statistics of all tokens.
    """

    name: str
    layer: int
    tokens: tuple[int, ...]
    pooled: tuple[int, ...]

    @property
    def summary(self) -> str:
        """Return in words which experts were pruned by all tokens."""
        few = ", ".join(map(str, self.pooled[:8])) + (" …" if len(self.pooled) > 8 else "")
        return (
            f"{self.name}: {len(self.pooled)} of {len(self.tokens)} experts ({few}) were reached by too few "
            "calibration tokens and were pruned by the statistics of all of them."
        )


@dataclass(frozen=True)
class UnitRow:
    """The heads or channels of one decoder layer in the report: numbers before and after, and parameters removed.

    `kind` is 'heads' (KV groups or query heads, as the job chose), 'channels' or 'layer'. `cost` is the increase of the
    loss that the method expected of what it removed, in nats a token, where it estimates one.
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

    `dense_losses` are the dense model's mean losses of the windows (nats).
    """

    dense: float
    pruned: float
    ratio_stderr: float | None = None
    dense_losses: tuple[float, ...] = ()

    @property
    def measured_dense(self) -> MeasuredPerplexity:
        return MeasuredPerplexity(self.dense, self.dense_losses)


@dataclass(frozen=True)
class PruneResult:
    """Result of a pass that prunes.

    `files` hold the tensors of the blocks, and of the head where it was pruned, under the names they are to be saved
    by; `unchanged` says where all others lie in the source; `config` is the new config.json where it is not the
    source's. `removed` counts weights that are zero or gone, `prunable` those that could have been. `verification`
    holds a few tokens and the logits the saved model must give for them. `refits` is the α chosen for each linear layer
    that is left of a cut and was fitted to the dense model, by its name in the source. `sections` are the rows that the
    kind of removal adds to the report, by the names of their sections. `micro_batches` is the history of their sizes,
    where memory ran out.
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
