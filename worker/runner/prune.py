"""The runner's part in pruning a language model: open, prune, evaluate and write one job's checkpoint."""

from collections.abc import Callable, Sequence

import torch

from core.engine.datasets.token_windows import starts_with_bos
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.pruning.block_pass import GroupRow, LayerRow, PassObserver
from core.pipeline.passes import walk_for
from core.pipeline.reports.report import PeakMemory
from worker.runner.dense import dense_figures, text_facts
from worker.runner.messages import LogMessage, Message, MetricMessage, ProgressMessage, StageMessage
from worker.runner.recover import calibration_set, evaluation_sets
from worker.runner.report import prune_result
from worker.runner.results import PruneOutput
from worker.runner.specs import PruneSpec


def prune_model(
    spec: PruneSpec,
    *,
    device: torch.device,
    send: Callable[[Message], None],
    stop_if_requested: Callable[[], None],
    peak_memory: Callable[[], PeakMemory],
) -> PruneOutput:
    """Prune a language model, and write the checkpoint to the artifact's folder.

    `stop_if_requested` is called once a block is saved, and may end the process.
    """
    send(StageMessage(stage="open"))
    folder = open_model(spec.model.path, own_artifact=spec.model.own_artifact)
    recipe = spec.recipe
    needs_tokenizer = spec.calibration or spec.evaluation or recipe.evaluation.prompts
    tokenizer = folder.tokenizer() if needs_tokenizer else None
    calibration = calibration_set(spec, tokenizer)
    evaluations = {} if tokenizer is None else evaluation_sets(recipe.evaluation, spec.evaluation, tokenizer)

    dense = dense_figures(spec, send)
    facts = text_facts(spec, folder, evaluations, device)
    known = {name: taken["perplexity"] for name in facts if (taken := dense.take("perplexity", name, facts[name]))}

    def on_block(done: int, blocks: int, rows: Sequence[LayerRow | GroupRow]) -> None:
        send(ProgressMessage(progress=0.95 * done / blocks, block=done, blocks=blocks))
        errors = [row.reconstruction_error for row in rows if isinstance(row, LayerRow)]
        measured = [error for error in errors if error is not None]
        if measured:
            send(MetricMessage(name="reconstruction_error", step=done - 1, value=sum(measured) / len(measured)))
        stop_if_requested()

    def on_stage(stage: str) -> None:
        if stage != "evaluate" or recipe.recovery is None:  # else what is measured now belongs to pruning
            send(StageMessage(stage=stage))

    def on_log(message: str) -> None:
        send(LogMessage(level="info", message=message))

    walk = walk_for(
        folder,
        recipe.request,
        device=device,
        calibration=calibration,
        evaluations=evaluations,
        work=spec.work,
        previous=spec.previous,
        revision=spec.model.revision,
        activation_budget_bytes=spec.activation_budget_bytes,
        observer=PassObserver(on_block=on_block, on_stage=on_stage, on_log=on_log),
        dense_perplexity=known,
    )
    result = walk.run()
    for name, pair in result.perplexity.items():
        if name not in known:
            dense.add("perplexity", name, facts[name], {"perplexity": pair.dense})
    peak = peak_memory()
    artifact_bytes = write_checkpoint(
        result.files, result.unchanged, spec.model.path, spec.artifact, config=result.config
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
    return output
