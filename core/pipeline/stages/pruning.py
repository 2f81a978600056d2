"""Pruning and quantisation of a language model: open it, change it, measure it and write the checkpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from core.engine.architectures.description import ModelDescription, in_dtype, require_structure
from core.engine.architectures.structure import ModelStructure, cache_bytes
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.cuts import LAYER, unit_rows
from core.engine.datasets.token_windows import EvaluationSet
from core.engine.datasets.window_losses import WindowLosses
from core.engine.evaluation.perplexity import MeasuredPerplexity
from core.engine.evaluation.perplexity_ratio import bits_per_byte
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.accelerator import backend_of
from core.engine.models.casting import cast_figures, folder_as_stored
from core.engine.models.folder import ModelFolder
from core.engine.models.micro_batches import run_within_memory
from core.engine.models.tensors import DTYPES
from core.engine.options.patterns import UNSTRUCTURED
from core.engine.pruning.results import LayerRow, PerplexityPair, PruneResult, UnitRow
from core.engine.pruning.streams.measure import measure
from core.engine.quantization.settings import reads_inputs, resolve_quantization, stored_bits
from core.engine.removals.runs import LanguagePass
from core.engine.resume.store import tensors_sha256
from core.methods.registry import METHODS
from core.pipeline.dense_measurements import dense_figures, releases
from core.pipeline.messages import PruneOutput
from core.pipeline.plans import walk_for
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.reports.dense_figures import Facts
from core.pipeline.reports.equal_bytes import alternatives_measured_in, name_of_copy
from core.pipeline.reports.model_card import SHAPE_CHART, WORTH_TABLE
from core.pipeline.reports.report import (
    ARTIFACT,
    EngineSettings,
    PeakMemory,
    QuantizationReport,
    Report,
    Rounded,
    Rounding,
)
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import TokenSets, open_place, spans_of, token_sets, windows_of
from core.pipeline.stages.pruning_spec import PruneSpec, QuantizeSpec
from core.pipeline.stages.report import described_texts, reported_model, versions
from core.progress import PartialProgress, Progress
from secateur_wire.metrics import Metrics, Parameters, Perplexity, Sizes, Sparsity


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


def prune(spec: PruneSpec, context: StageContext) -> PruneOutput:
    """Prune a language model, measure it and write it.

    Raises WorkStopped if it is asked to stop, after the current block is saved.
    """
    progress, device = context.progress, context.device
    backend_of(device).keep_memory()
    progress.stage("open")
    folder = open_place(spec.source)
    given = folder if spec.reduced is None else open_place(spec.model)
    recipe, tokens = spec.recipe, token_sets(spec, folder)
    stored = folder_as_stored(folder, recipe.output.dtype)
    rounding = None if stored is folder else cast_figures(stored, recipe.output.dtype, progress)
    dense = dense_figures(spec, progress)
    facts = _dense_facts(spec, given, tokens.dense_sets, device)
    known = {
        name: MeasuredPerplexity(taken.values["perplexity"], taken.window_losses)
        for name in facts
        if (taken := dense.reuse("perplexity", name, facts[name]))
    }
    rounded: dict[str, MeasuredPerplexity] = {}
    if spec.reduced is not None:
        unknown = {name: each for name, each in tokens.dense_sets.items() if name not in known}
        measured = _measured_dense(spec, given, given, unknown, device)
        for name, each in measured.items():
            values = {"perplexity": each.value}
            dense.add("perplexity", name, facts[name], values, window_losses=each.window_losses)
        known |= measured
        if rounding is not None:
            as_stored = folder_as_stored(given, recipe.output.dtype)
            rounded = _measured_dense(spec, given, as_stored, tokens.dense_sets, device)

    walk, result = run_within_memory(
        lambda: walk_for(
            folder,
            replace(recipe.request, costs=spec.costs),
            device=device,
            calibration=tokens.calibration,
            evaluations=tokens.evaluations,
            work=spec.work,
            previous=spec.previous,
            revision=spec.source.revision,
            activation_budget_bytes=spec.activation_budget_bytes,
            progress=_PruningProgress(progress, is_last=recipe.recovery is None),
            dense_perplexity=known,
            is_dense=spec.reduced is None,
            stored=stored,
            spans=spans_of(tokens.evaluation_sets),
            quantization=recipe.output.quantization if recipe.is_rounded_by_pass else None,
        ),
        lambda walk: walk.run(),
    )
    for name, pair in result.perplexity.items():
        if name not in known:
            values = {"perplexity": pair.dense}
            dense.add("perplexity", name, facts[name], values, window_losses=pair.dense_losses)
    peak = context.peak_memory()
    artifact_bytes = write_checkpoint(
        result.files,
        result.unchanged,
        spec.source.path,
        spec.pruned,
        config=result.config,
        discovered=folder.description.discovered,
    )
    metrics = _metrics(given.description, folder.description, result, tokens, artifact_bytes)
    if recipe.target is not None and recipe.target.memory_bytes is not None:
        sizes, structure = metrics.bytes, _structure_left(folder.description, result)
        assert sizes is not None
        sizes.cache = cache_bytes(structure, recipe.timed_length, WEIGHT_BYTES[stored.description.dtype])
    report = _report(spec, walk, given.description, result, tokens, peak)
    if rounding is not None:
        rounded |= {name: each for name, pair in result.perplexity.items() if (each := pair.measured_rounded)}
        perplexity = {
            name: Rounded.of(result.perplexity[name].dense, each.value, each.divergence)
            for name, each in rounded.items()
        }
        report.rounding = Rounding(**asdict(rounding), perplexity=perplexity)
        report.note(report.rounding.words)
    if recipe.is_rounded_by_pass:
        report.quantization = quantised(recipe, folder.description, result.layers)
        report.note(report.quantization.words)
    metrics.peak_memory_bytes = peak.of_model
    if alternatives := alternatives_measured_in(given.description, recipe, report.rounding):
        metrics.alternatives = alternatives
    losses = {ARTIFACT: {name: pair.pruned_losses for name, pair in result.perplexity.items()}}
    if rounding is not None:
        losses[name_of_copy(rounding.dtype)] = {name: each.window_losses for name, each in rounded.items()}
    report.window_losses = {
        model: {name: WindowLosses(losses=each) for name, each in by_text.items()} for model, by_text in losses.items()
    }
    dense.write_to(report)
    _draw_shapes(report, spec)
    if result.worth is not None:
        (spec.artifact / WORTH_TABLE).write_text(result.worth.model_dump_json(), "utf-8")
    return PruneOutput(metrics=metrics, report=report, expected=Path(result.verification))


def _dense_facts(
    spec: PruneSpec, folder: ModelFolder, sets: Mapping[str, EvaluationSet], device: torch.device
) -> dict[str, Facts]:
    """Return the facts of the dense perplexity on each evaluation set."""
    hashes = {text.name: text.sha256 for text in spec.evaluation}
    return {
        name: {
            "model": spec.model.revision,
            "dataset": hashes[name],
            "tokens": tensors_sha256(each.windows),
            "samples": each.windows.shape[0],
            "sequence_length": each.windows.shape[1],
            "dtype": folder.description.dtype,
            "device": device.type,
            **({} if each.spans is None else {"predicted": str(list(each.spans.spans))}),
            **releases(),
        }
        for name, each in sets.items()
    }


def _measured_dense(
    spec: PruneSpec, dense: ModelFolder, stored: ModelFolder, sets: Mapping[str, EvaluationSet], device: torch.device
) -> dict[str, MeasuredPerplexity]:
    """Return the perplexity of the dense model, whose tokens are not those of the model that is pruned.

    Its weights are read from `stored`, rounded or as they are, and computed with in the model's own dtype.
    """
    if not sets:
        return {}
    measured = measure(
        stored,
        windows_of(sets),
        work=spec.work / "dense-evaluation",
        device=device,
        dtype=DTYPES[dense.description.dtype],
        activation_budget_bytes=spec.activation_budget_bytes,
        spans=spans_of(sets),
    )
    return {
        name: MeasuredPerplexity(value, measured.window_losses[name]) for name, value in measured.perplexity.items()
    }


def _metrics(
    dense: ModelDescription, source: ModelDescription, result: PruneResult, tokens: TokenSets, artifact_bytes: int
) -> Metrics:
    """Return the metrics of a pass over `source`: the dense model, or what is left of it without some tokens."""
    left = source.parameters - result.removed
    return Metrics(
        perplexity={
            name: perplexity_of(pair, tokens.dense_sets[name], dense) for name, pair in result.perplexity.items()
        },
        sparsity=Sparsity(
            prunable=result.removed / result.prunable, model=(dense.parameters - left) / dense.parameters
        ),
        parameters=Parameters(dense=dense.parameters, nonzero=left),
        bytes=Sizes(dense=dense.bytes, artifact=artifact_bytes),
    )


def _structure_left(source: ModelDescription, result: PruneResult) -> ModelStructure:
    """Return the structure of the layers that are left, with the KV heads that each has."""
    structure = require_structure(source)
    rows = {(row["layer"], row["kind"]): row["after"] for row in unit_rows([asdict(each) for each in result.layers])}
    layers = [
        layer.model_copy(update={"kv_heads": rows.get((index, "heads"), layer.sizes["kv_heads"])})
        for index, layer in enumerate(structure.layers)
        if (index, LAYER) not in rows
    ]
    return structure.model_copy(update={"layers": layers})


def _report(
    spec: PruneSpec,
    walk: LanguagePass[Any],
    dense: ModelDescription,
    result: PruneResult,
    tokens: TokenSets,
    peak: PeakMemory,
) -> Report:
    """Return the report of a pass."""
    return Report(
        job=spec.job,
        attempt=spec.attempt,
        model=reported_model(spec.model, dense),
        layers=[asdict(row) for row in result.layers],
        layer_sparsities=list(result.sparsities),
        texts=described_texts(spec),
        notes=[*result.notes, *tokens.notes],
        tokens=tokens.described(),
        engine=EngineSettings.model_validate(
            {
                **walk.plan.facts(),
                **({"refits": dict(result.refits)} if result.refits else {}),
                **({"micro_batches": list(result.micro_batches)} if result.micro_batches else {}),
                "resumed_from_block": result.resumed_from,
            }
        ),
        peak_memory=peak,
        **{name: [asdict(row) for row in rows] for name, rows in result.sections.items() if rows},
        versions=versions("secateur-server", "torch", "transformers", "safetensors"),
    )


def _draw_shapes(report: Report, spec: PruneSpec) -> None:
    """Draw what each layer keeps, as a file of the artifact, if heads, channels or layers were removed."""
    if not unit_rows(report.layers):
        return
    from core.pipeline.reports.charts import shape_chart  # slow to load, and only these jobs need it

    spec.artifact.mkdir(parents=True, exist_ok=True)
    title = f"Layers of {spec.recipe.model} after {spec.recipe.method}"
    (spec.artifact / SHAPE_CHART).write_text(shape_chart(report, title=title), "utf-8")


class _PruningProgress(PartialProgress):
    """Progress of the pass; if recovery follows, the measurement at the end counts as part of pruning."""

    def __init__(self, outer: Progress, *, is_last: bool) -> None:
        super().__init__(outer, end=0.95)
        self._is_last = is_last

    def stage(self, name: str) -> None:
        if name != "evaluate" or self._is_last:
            self.outer.stage(name)


def quantize(spec: QuantizeSpec, context: StageContext) -> PruneOutput:
    """Round the weights of the pruned or trained model, write the artifact and measure it.

    Raises WorkStopped if it is asked to stop, after the current block is saved.
    """
    source = spec.pruned if spec.recipe.recovery is None else spec.trained
    folder, dense = open_place(spec.place_of(source)), open_place(spec.source)
    tokens, measured = token_sets(spec, dense), folder
    if dense.description.dtype != folder.description.dtype:  # measured as the pass before measured it
        measured = replace(folder, description=in_dtype(folder.description, dense.description.dtype))
    known = {
        each.name: MeasuredPerplexity(each.values["perplexity"], each.window_losses)
        for each in spec.dense
        if each.kind == "perplexity"
    }
    chosen = spec.recipe.output.quantization
    assert chosen is not None
    resolve_quantization(chosen, folder.description, (), is_calibrated=True)  # the widths that are left
    calibration = tokens.calibration if reads_inputs(chosen) else None
    nothing = next(each for each in METHODS.values() if each.only_stores)
    request = ResolvedRequest(nothing.id, UNSTRUCTURED.text, None, nothing.parameters(), folder.description.layout)
    work = spec.work / "quantize"
    work.mkdir(exist_ok=True)
    _, result = run_within_memory(
        lambda: walk_for(
            measured,
            request,
            stored=folder,
            device=context.device,
            quantization=chosen,
            calibration=calibration,
            evaluations=tokens.evaluations,
            work=work,
            previous=[each / "quantize" for each in spec.previous],
            revision=f"{spec.source.revision} of {spec.job}",
            activation_budget_bytes=spec.activation_budget_bytes,
            progress=PartialProgress(context.progress, end=0.95),
            dense_perplexity=known,
            is_dense=False,
            spans=spans_of(tokens.evaluation_sets),
        ),
        lambda walk: walk.run(),
    )
    size = write_checkpoint(
        result.files,
        result.unchanged,
        source,
        spec.artifact,
        config=result.config,
        discovered=folder.description.discovered,
    )
    given = dense.description if spec.reduced is None else open_place(spec.model).description
    metrics = Metrics(
        perplexity={
            name: perplexity_of(pair, tokens.dense_sets[name], given) for name, pair in result.perplexity.items()
        },
        bytes=Sizes(artifact=size),
    )
    report = Report(
        notes=result.notes,
        quantization=quantised(spec.recipe, folder.description, result.layers),
        peak_memory=context.peak_memory(),
        window_losses={
            ARTIFACT: {name: WindowLosses(losses=pair.pruned_losses) for name, pair in result.perplexity.items()}
        },
    )
    return PruneOutput(metrics=metrics, report=report, expected=Path(result.verification))
