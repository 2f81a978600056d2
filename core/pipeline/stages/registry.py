"""Table of the stages of a job, in their order, and of the tasks of a runner; it does not load torch."""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final

from core.pipeline.messages import JobSpec, Spec
from core.pipeline.stages.add_export.spec import AddExports, AddExportSpec
from core.pipeline.stages.check_export.spec import CheckExports, CheckExportSpec
from core.pipeline.stages.evaluation_spec import (
    AnswersSpec,
    AnswerTasks,
    CompareAnswers,
    GenerateSpec,
    MeasureModels,
    MeasureSpec,
    TasksSpec,
    VerifyArtifact,
    VerifySpec,
)
from core.pipeline.stages.export.spec import ExportSpec, ExportWeights
from core.pipeline.stages.measure_files.spec import MeasureFiles, MeasureFilesSpec
from core.pipeline.stages.pruning_spec import (
    MeasureSensitivity,
    PruneClassifier,
    PruneClassifierSpec,
    PruneModel,
    PruneSpec,
    QuantizeModel,
    QuantizeSpec,
    RecoverModel,
    RecoverSpec,
    RemoveTokens,
    SensitivitySpec,
    VocabularySpec,
)
from core.pipeline.stages.search_spec import SearchSparsity, SearchSpec
from core.pipeline.stages.sources_spec import ImportGgufSpec, NewNetworkSpec, WriteSpec
from core.pipeline.stages.stage import JobStage
from core.pipeline.stages.time_export.spec import TimeExports, TimeExportSpec

ORDER: Final[tuple[tuple[JobStage, float], ...]] = (
    (CheckExports(), 0),
    (RemoveTokens(), 0),
    (SearchSparsity(), 10),
    (PruneModel(), 80),
    (RecoverModel(), 100),
    (QuantizeModel(), 50),
    (MeasureSensitivity(), 99),
    (PruneClassifier(), 80),
    (MeasureModels(), 12),
    (CompareAnswers(), 1),
    (AnswerTasks(), 1),
    (VerifyArtifact(), 1),
    (AddExports(), 1),
    (MeasureFiles(), 1),
    (TimeExports(), 0.5),
    (ExportWeights(), 0.5),
)
"""Stages in their order, each with its work: a job's progress is shared among its stages in this proportion."""
_STORING = 0.01
"""Part of a job's progress that remains for storing the artifact."""
RUNS: Final[dict[type[Spec], str]] = {
    VocabularySpec: "vocabulary.remove_tokens",
    SearchSpec: "search.search_target",
    PruneSpec: "pruning.prune",
    RecoverSpec: "recovery.recover_model",
    QuantizeSpec: "pruning.quantize",
    SensitivitySpec: "sensitivity.measure_sensitivity",
    PruneClassifierSpec: "classifier.prune_classifier",
    MeasureSpec: "evaluation.measure_latencies",
    GenerateSpec: "evaluation.generate",
    AnswersSpec: "answers.compare_answers",
    TasksSpec: "evaluation.answer_tasks",
    VerifySpec: "evaluation.verify",
    CheckExportSpec: "check_export.run.run",
    AddExportSpec: "add_export.run.run",
    MeasureFilesSpec: "measure_files.run.run",
    TimeExportSpec: "time_export.run.run",
    ExportSpec: "export.run.run",
    WriteSpec: "sources.write_text",
    ImportGgufSpec: "sources.import_gguf",
    NewNetworkSpec: "sources.create_network",
}
"""Functions of this package that do the tasks, by the task's spec; their modules need torch."""
_SPECS: Final = {spec.model_fields["task"].default: spec for spec in RUNS}


def stages_of(spec: JobSpec) -> Iterator[tuple[JobStage, tuple[float, float]]]:
    """Yield the stages of a job in their order, each with the part of the job's progress that it covers."""
    applying = [(stage, work) for stage, work in ORDER if stage.applies(spec)]
    total = sum(work for _, work in applying)
    done = 0.0
    for stage, work in applying:
        yield stage, ((1 - _STORING) * done / total, (1 - _STORING) * (done + work) / total)
        done += work


def parse_spec(message: bytes) -> Spec:
    """Parse a message to a runner; raises pydantic's ValidationError if it does not fit the task's spec."""
    return _SPECS[json.loads(message)["task"]].model_validate_json(message)


def run_module(spec: type[Spec]) -> str:
    """Return the name of the module that runs a task; the module needs torch."""
    return f"{__package__}.{RUNS[spec].rpartition('.')[0]}"


def run_function(spec: type[Spec]) -> Callable[..., Any]:
    """Return the function that runs a task; its module is loaded."""
    function: Callable[..., Any] = getattr(import_module(run_module(spec)), RUNS[spec].rpartition(".")[2])
    return function
