"""Figures that the stages which prune and quantise share."""

from collections.abc import Iterable

from core.engine.architectures.description import ModelDescription
from core.engine.datasets.token_windows import EvaluationSet
from core.engine.evaluation.bits_per_byte import bits_per_byte
from core.engine.pruning.results import LayerRow, PerplexityPair, UnitRow
from core.engine.quantization.settings import stored_bits
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.report import QuantizationReport
from secateur_wire.metrics import Perplexity


def perplexity_of(pair: PerplexityPair, text: EvaluationSet, dense: ModelDescription) -> Perplexity:
    """Return the perplexity and the bits per byte on a text, by the windows of the dense model."""
    figures = Perplexity(
        dense=pair.dense,
        pruned=pair.pruned,
        ratio=pair.pruned / pair.dense,
        ratio_stderr=pair.ratio_stderr,
        sequence_length=text.windows.shape[1],
        chance=dense.vocabulary_size,
    )
    figures.bits_per_byte = bits_per_byte(
        figures, tokens=text.predicted, text_bytes=text.text_bytes, stderr=pair.bits_ratio_stderr
    )
    return figures


def quantised(
    recipe: Recipe, description: ModelDescription, layers: Iterable[LayerRow | UnitRow]
) -> QuantizationReport:
    """Return the report's section on a pass that quantised the linear layers of a model's blocks."""
    chosen = recipe.output.quantization
    assert chosen is not None and chosen.rounding is not None
    weights = sum(each.numel for each in description.linears)
    rows = [each for each in layers if isinstance(each, LayerRow)]
    errors = [each.reconstruction_error for each in rows if each.reconstruction_error is not None]
    return QuantizationReport(
        scheme=chosen.scheme,
        group_size=chosen.group_size,
        rounding=chosen.rounding,
        layers=len(description.linears),
        weights=weights,
        bits_per_weight=stored_bits(description, chosen) / weights,
        reconstruction_error=sum(errors) / len(errors) if errors else None,
    )
