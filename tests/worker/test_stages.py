"""The stages of an attempt: which of them a job has, in which order, and what each covers of its progress."""

import sys
from pathlib import Path
from typing import Any

import pytest

from core.discovery import find_class, folders
from core.pipeline import stages
from core.pipeline.messages import ClassifierSpec, JobSpec, LanguageSpec, ModelSource
from core.pipeline.stages.registry import STAGES, stages_of
from core.pipeline.stages.stage import JobStage
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
        (False, {"sparsity": 0.5}, PRUNE),
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
            {"sparsity": 0.5, "output": {"format": "packed", "exports": GGUF}},
            ["CheckExports", *PRUNE, "AddExports", "ExportWeights"],
        ),
        (
            False,
            {"method": "flap", "sparsity": 0.5, "pattern": "structured", "output": {"exports": GGUF}},
            ["CheckExports", *PRUNE, "AddExports", "TimeExports"],
        ),
        (False, {"method": "sensitivity"}, ["MeasureSensitivity"]),
        (True, {"method": "obd", "sparsity": 0.5}, ["PruneClassifier", *PRUNE[1:]]),
        (
            True,
            {"sparsity": 0.5, "output": {"format": "hashed"}},
            ["PruneClassifier", *PRUNE[1:], "ExportWeights"],
        ),
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


SPEC = """
from core.pipeline.stages.stage import JobStage


class CountZeros(JobStage):
    rank = 95
    shown_as = "evaluate"
    part = 0.95, 0.95

    def applies(self, spec):
        return not spec.recipe.measures

    def supervise(self, job):
        pass
"""


def test_a_stage_is_a_folder_that_is_found_elsewhere_on_the_packages_path_and_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "count_zeros"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "spec.py").write_text(SPEC)
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path)])
    assert "count_zeros" in folders(stages)
    found = find_class(stages, "count_zeros", "spec", JobStage)
    assert found is not None
    monkeypatch.setitem(STAGES, "count_zeros", found())
    names = [type(stage).__name__ for stage in stages_of(spec_of(False, sparsity=0.5))]
    assert names == ["PruneModel", "MeasureLatency", "CountZeros", "VerifyArtifact"]
    monkeypatch.delitem(sys.modules, "core.pipeline.stages.count_zeros.spec")
    monkeypatch.delitem(sys.modules, "core.pipeline.stages.count_zeros")
    monkeypatch.delattr(stages, "count_zeros")
