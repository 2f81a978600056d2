"""Choice of the stage that a message asks for; libraries that are slow to load are loaded for that stage alone."""

from collections.abc import Callable

import torch

from core.engine.models.accelerator import default_device
from core.methods.registry import get_method
from core.pipeline.messages import (
    AddExportSpec,
    CheckExportSpec,
    ClassifierSpec,
    ExportSpec,
    GenerateSpec,
    GenerateTextSpec,
    ImportGgufSpec,
    LanguageSpec,
    MeasureSpec,
    NewNetworkSpec,
    Spec,
    TasksSpec,
    TimeExportSpec,
    VerifySpec,
)
from core.pipeline.results import PruneOutput, TaskOutput
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.evaluate import answer_tasks, generate, measure
from core.pipeline.stages.export import add_export, check_export, export, time_export
from core.pipeline.stages.models import generate_text, import_gguf, new_network
from core.pipeline.stages.verify import verify
from core.progress import Progress


def run_stage(spec: Spec, progress: Progress, peak_resident_bytes: Callable[[], int]) -> TaskOutput:
    """Do what a message asks for; raises WorkStopped where a stage was stopped, with what it had done saved."""
    match spec:
        case ExportSpec():
            return export(spec)
        case CheckExportSpec():
            return check_export(spec)
        case NewNetworkSpec():
            return new_network(spec)
        case ImportGgufSpec():
            return import_gguf(spec)
    device = torch.device(spec.device) if spec.device else default_device()
    context = StageContext(device, progress, peak_resident_bytes)
    match spec:
        case LanguageSpec():
            return _language_stage(spec, context)
        case ClassifierSpec():
            return _classifier_stage(spec, context)
        case MeasureSpec():
            return measure(spec, context)
        case TasksSpec():
            return answer_tasks(spec, context)
        case GenerateSpec():
            return generate(spec, context)
        case VerifySpec():
            return verify(spec, context)
        case AddExportSpec():
            return add_export(spec, context)
        case TimeExportSpec():
            return time_export(spec, context)
        case GenerateTextSpec():
            return generate_text(spec, context)


def _language_stage(spec: LanguageSpec, context: StageContext) -> TaskOutput:
    match spec.task:
        case "search":
            from core.pipeline.stages.search import search_target

            return search_target(spec, context)
        case "prune":
            from core.pipeline.stages.prune import prune_model

            return prune_model(spec, context)
        case "recover":
            from core.pipeline.stages.recover import recover_model

            return recover_model(spec, context)
        case "sensitivity":
            from core.pipeline.stages.sensitivity import measure_sensitivity

            return measure_sensitivity(spec, context)


def _classifier_stage(spec: ClassifierSpec, context: StageContext) -> PruneOutput:
    if get_method(spec.recipe.method).measures:
        from core.pipeline.stages.classifier_sensitivity import measure_classifier

        return measure_classifier(spec, context)
    from core.pipeline.stages.classifier import prune_classifier

    return prune_classifier(spec, context)
