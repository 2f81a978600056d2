"""Sensitivity of a language model: measure each layer alone, and write the figures and their chart."""

from dataclasses import replace

from core.engine.models.micro_batches import run_within_memory
from core.engine.options.sensitivity import Sensitivity
from core.methods.sensitivity import SensitivityPass
from core.pipeline.messages import PruneOutput
from core.pipeline.plans import make_sensitivity_plan
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import open_place, token_sets
from core.pipeline.stages.pruning_spec import SensitivitySpec
from core.pipeline.stages.report import described_texts, sensitivity_output
from core.progress import PartialProgress


def measure_sensitivity(spec: SensitivitySpec, context: StageContext) -> PruneOutput:
    """Measure a language model's sensitivity: return metrics and report, and write figures and chart.

    Figures and chart go to the artifact's folder. Raises WorkStopped if it is asked to stop, after the current layer is
    saved.
    """
    progress, device = context.progress, context.device
    progress.stage("open")
    folder = open_place(spec.model)
    parameters = spec.recipe.parameters.sensitivity_options
    assert parameters is not None and parameters.pattern is not None
    tokens = token_sets(spec, folder)
    ((text, tokens_NT),) = tokens.evaluations.items()

    plan = make_sensitivity_plan(folder, parameters, device=device)
    walk, result = run_within_memory(
        lambda: SensitivityPass(
            folder,
            plan,
            calibration=tokens.calibration,
            evaluations=tokens.evaluations,
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
    read = tokens if walk.calibration is not None else replace(tokens, calibration=None)
    return sensitivity_output(
        spec,
        folder.description,
        sensitivity,
        context.peak_memory(),
        engine={
            "forward_dtype": str(plan.forward_dtype).removeprefix("torch."),
            "model_dtype": str(plan.dtype).removeprefix("torch."),
            "device": device.type,
            "resumed_from_block": result.resumed_from,
            **({"micro_batches": list(result.micro_batches)} if result.micro_batches else {}),
        },
        notes=result.notes,
        texts=described_texts(spec, calibrates=read.calibration is not None),
        tokens=read.described(),
    )
