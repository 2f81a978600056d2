"""The stages of an attempt: which of them a job has, in which order, and what each covers of its progress."""

from pathlib import Path
from typing import Any

import pytest

from core.pipeline.messages import ClassifierSpec, JobSpec, LanguageSpec, ModelSource
from core.pipeline.stages.registry import stages_of
from tests.recipes import recipe_of

GGUF = [{"format": "gguf", "types": ["Q8_0"]}]
PRUNE = ["PruneModel", "MeasureLatency", "VerifyArtifact"]


def spec_of(is_classifier: bool, **body: Any) -> JobSpec:
    folder = Path("work")
    common: dict[str, Any] = {
        "job": "job_1", "attempt": 1, "recipe": recipe_of(**body), "calibration": None, "evaluation": [],
        "model": ModelSource(path=folder, name="m", revision="1"), "work": folder, "previous": [],
        "artifact": folder / "artifact", "device": None, "threads": None,
    }  # fmt: skip
    if is_classifier:
        return ClassifierSpec(**common, recovery=None)
    return LanguageSpec(**common, activation_budget_bytes=1)


@pytest.mark.parametrize(
    ("is_classifier", "body", "expected"),
    [
        (
            False,
            {"sparsity": 0.5, "recovery": {"method": "finetune", "steps": 1}},
            ["PruneModel", "RecoverModel", *PRUNE[1:]],
        ),
        (False, {"method": "depth", "target": {"latency_ratio": 0.8}}, ["SearchSparsity", *PRUNE]),
        (
            False,
            {"sparsity": 0.5, "evaluation": {"prompts": ["a"], "tasks": ["piqa"]}, "output": {"format": "packed"}},
            ["PruneModel", "MeasureLatency", "GenerateTexts", "AnswerTasks", "VerifyArtifact", "ExportWeights"],
        ),
        (
            False,
            {"method": "flap", "sparsity": 0.5, "pattern": "structured", "output": {"exports": GGUF}},
            ["CheckExports", *PRUNE, "AddExports", "TimeExports"],
        ),
        (False, {"method": "sensitivity"}, ["MeasureSensitivity"]),
        (True, {"method": "obd", "sparsity": 0.5}, ["PruneClassifier", *PRUNE[1:]]),
        (True, {"method": "sensitivity"}, ["PruneClassifier"]),
    ],
)
def test_a_job_has_the_stages_that_apply_and_its_progress_never_falls(
    is_classifier: bool, body: dict[str, Any], expected: list[str]
) -> None:
    spec = spec_of(is_classifier, **body)
    applying = stages_of(spec)
    assert [type(stage).__name__ for stage in applying] == expected
    places = [place for stage in applying for place in stage.share(spec)]
    assert places == sorted(places) and places[0] == 0.0 and places[-1] <= 0.99, "storing does the rest"
