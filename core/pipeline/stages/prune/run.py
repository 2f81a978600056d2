"""Pruning of a language model: open, prune, evaluate and write one job's checkpoint."""

from core.engine.datasets.token_windows import starts_with_bos
from core.engine.evaluation.perplexity import MeasuredPerplexity
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.pruning.micro_batches import run_within_memory
from core.pipeline.messages import PruneOutput
from core.pipeline.passes import walk_for
from core.pipeline.reports.model_card import SHAPE_CHART
from core.pipeline.reports.report import Report, unit_rows
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.dense import dense_figures, text_facts
from core.pipeline.stages.opening import open_place
from core.pipeline.stages.prune.report import prune_result
from core.pipeline.stages.prune.spec import PruneSpec
from core.pipeline.stages.texts import calibration_set, evaluation_sets
from core.progress import PartialProgress, Progress


def run(spec: PruneSpec, context: StageContext) -> PruneOutput:
    """Prune a language model, measure it and write it; raises WorkStopped once asked to stop and a block is saved."""
    progress, device = context.progress, context.device
    progress.stage("open")
    folder = open_place(spec.model)
    recipe = spec.recipe
    needs_tokenizer = spec.calibration or spec.evaluation or recipe.evaluation.prompts
    tokenizer = folder.tokenizer() if needs_tokenizer else None
    calibration = calibration_set(spec, tokenizer)
    evaluations = {} if tokenizer is None else evaluation_sets(recipe.evaluation, spec.evaluation, tokenizer)

    dense = dense_figures(spec, progress)
    facts = text_facts(spec, folder, evaluations, device)
    known = {
        name: MeasuredPerplexity(taken.values["perplexity"], taken.window_losses)
        for name in facts
        if (taken := dense.take("perplexity", name, facts[name]))
    }

    walk, result = run_within_memory(
        lambda: walk_for(
            folder,
            recipe.request,
            device=device,
            calibration=calibration,
            evaluations=evaluations,
            work=spec.work,
            previous=spec.previous,
            revision=spec.model.revision,
            activation_budget_bytes=spec.activation_budget_bytes,
            progress=_Pruning(progress, is_last=recipe.recovery is None),
            dense_perplexity=known,
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
        spec.model.path,
        spec.pruned,
        config=result.config,
        discovered=folder.description.discovered,
    )
    output = prune_result(
        spec,
        folder.description,
        walk.plan,
        result,
        artifact_bytes=artifact_bytes,
        peak=peak,
        calibration_shape=None if calibration is None else tuple(calibration.shape),
        evaluation_shapes={name: tuple(tokens.shape) for name, tokens in evaluations.items()},
        bos=starts_with_bos(tokenizer) if tokenizer is not None else None,
    )
    dense.write_to(output.report)
    _draw_shapes(output.report, spec)
    return output


def _draw_shapes(report: Report, spec: PruneSpec) -> None:
    """Draw what each layer keeps into the artifact, where heads, channels or layers were removed."""
    rows = unit_rows(report.layers)
    if not rows:
        return
    from core.pipeline.reports.shape_chart import shape_chart  # slow to load, and for such jobs alone

    spec.artifact.mkdir(parents=True, exist_ok=True)
    title = f"Layers of {spec.recipe.model} after {spec.recipe.method}"
    (spec.artifact / SHAPE_CHART).write_text(shape_chart(rows, title=title, experts=report.experts), "utf-8")


class _Pruning(PartialProgress):
    """Progress of the pass: where recovery follows, what is measured at its end belongs to pruning."""

    def __init__(self, outer: Progress, *, is_last: bool) -> None:
        super().__init__(outer, end=0.95)
        self._is_last = is_last

    def stage(self, name: str) -> None:
        if name != "evaluate" or self._is_last:
            self.outer.stage(name)
