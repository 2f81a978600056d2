"""Quantisation of a model that is already written: one more pass over its blocks, which prunes nothing."""

from dataclasses import replace
from pathlib import Path

from core.engine.architectures.description import in_dtype
from core.engine.datasets.window_losses import WindowLosses
from core.engine.evaluation.perplexity import MeasuredPerplexity
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.micro_batches import run_within_memory
from core.engine.options.patterns import UNSTRUCTURED
from core.engine.quantization.settings import reads_inputs, resolve_quantization
from core.methods.registry import METHODS
from core.pipeline.messages import PruneOutput
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.reports.report import ARTIFACT, Report
from core.pipeline.stages.inputs import open_place, spans_of, token_sets
from core.pipeline.stages.quantised import perplexity_of, quantised
from core.pipeline.stages.quantize.spec import QuantizeSpec
from core.pipeline.stages.run import StageContext
from core.progress import PartialProgress
from secateur_wire.metrics import Metrics, Sizes


def run(spec: QuantizeSpec, context: StageContext) -> PruneOutput:
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
