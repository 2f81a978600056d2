"""Sensitivity of a language model: measure each layer alone, and write the figures and their chart."""

from core.engine.datasets.token_windows import starts_with_bos
from core.engine.options.sensitivity_curves import Sensitivity
from core.engine.pruning.micro_batches import run_within_memory
from core.methods.sensitivity.language_pass import SensitivityPass
from core.pipeline.messages import PruneOutput
from core.pipeline.plans import make_sensitivity_plan
from core.pipeline.reports.report import EngineSettings, Report
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.opening import open_place
from core.pipeline.stages.report import described_text, reported_model, versions
from core.pipeline.stages.sensitivity.spec import SensitivitySpec
from core.pipeline.stages.sensitivity_figures import NO_MODEL, sensitivity_metrics, write_sensitivity
from core.pipeline.stages.texts import calibration_set, evaluation_sets
from core.progress import PartialProgress


def run(spec: SensitivitySpec, context: StageContext) -> PruneOutput:
    """Measure a language model's sensitivity: return metrics and report, and write figures and chart.

    Figures and chart go to the artifact's folder. Raises WorkStopped once asked to stop and a layer is saved.
    """
    progress, device = context.progress, context.device
    progress.stage("open")
    folder = open_place(spec.model)
    recipe, tokenizer = spec.recipe, folder.tokenizer()
    parameters = recipe.parameters.sensitivity_options
    assert parameters is not None and parameters.pattern is not None
    calibration = calibration_set(spec, tokenizer)
    evaluations = evaluation_sets(recipe.evaluation, spec.evaluation, tokenizer)
    ((text, tokens_NT),) = evaluations.items()

    plan = make_sensitivity_plan(folder, parameters, device=device)
    walk, result = run_within_memory(
        lambda: SensitivityPass(
            folder,
            plan,
            calibration=calibration,
            evaluations=evaluations,
            work=spec.work,
            previous=spec.previous,
            revision=spec.model.revision,
            activation_budget_bytes=spec.activation_budget_bytes,
            progress=PartialProgress(progress, end=0.98),
        ),
        SensitivityPass.run,
    )
    windows, length = tokens_NT.shape
    sensitivity = Sensitivity(
        task="language-model",
        method=parameters.method,
        pattern=parameters.pattern,
        scope=parameters.scope,
        rates=list(plan.rates),
        measured_on={"dataset": text, "windows": windows, "sequence_length": length},
        dense=result.dense,
        curves=result.curves,
    )
    write_sensitivity(sensitivity, spec.artifact)
    peak = context.peak_memory()
    report = Report(
        job=spec.job,
        attempt=spec.attempt,
        model=reported_model(spec.model, folder.description),
        sensitivity=sensitivity.model_dump(mode="json"),
        texts={
            "calibration": described_text(spec.calibration) if walk.calibration and spec.calibration else None,
            "generated": described_text(spec.generated) if walk.calibration and spec.generated else None,
            "evaluation": {each.name: described_text(each) for each in spec.evaluation},
        },
        notes=[*result.notes, NO_MODEL],
        tokens={
            "calibration": None if walk.calibration is None or calibration is None else list(calibration.shape),
            "evaluation": {text: [windows, length]},
            "windows": "non-overlapping; calibration shuffled by seed, evaluation evenly spaced over the text",
            "bos_begins_each_window": starts_with_bos(tokenizer),
        },
        engine=EngineSettings.model_validate(
            {
                "forward_dtype": str(plan.forward_dtype).removeprefix("torch."),
                "model_dtype": str(plan.dtype).removeprefix("torch."),
                "device": device.type,
                "resumed_from_block": result.resumed_from,
                **({"micro_batches": list(result.micro_batches)} if result.micro_batches else {}),
            }
        ),
        peak_memory=peak,
        versions=versions("secateur-server", "torch", "transformers", "safetensors", "matplotlib"),
    )
    metrics = sensitivity_metrics(sensitivity)
    metrics.peak_memory_bytes = peak.of_model
    return PruneOutput(metrics=metrics, report=report)
