"""Jobs that the service would make of the structured bench's rows. Loads no torch."""

from pathlib import Path
from typing import Any, cast

from bench.contest import Ground
from bench.structured.plan import ROWS, TARGETS, Pruning, Row
from core.engine.datasets.formats import detect_format
from core.engine.recovery.request import Recovery
from core.pipeline.messages import LanguageSpec, ModelSource, TextSource
from core.pipeline.recipes.parts import Output
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.stages.registry import SPECS
from secateur_wire.job_body import Calibration, Evaluation, Gates

_ACTIVATION_BYTES = 4 * 2**30


def recipe_of(pruning: Pruning, ground: Ground, distil_steps: int) -> Recipe:
    """Return what the service would make of the row's body."""
    row, name = ROWS[pruning.row], ground.calibration.stem
    request = row.request(ground.description, TARGETS[pruning.target].sparsity(ground.description))
    calibration = None
    if row.samples:
        drawn, generated = request.parameters.split_calibration(row.samples) or (row.samples, 0)
        calibration = Calibration(
            dataset=name, samples=drawn, sequence_length=row.length, seed=pruning.seed, generated=generated or None
        )
    return Recipe(
        model=ground.model.name,
        method=row.method,
        sparsity=request.sparsity,
        pattern=request.pattern,
        parameters=request.parameters,
        calibration=calibration,
        evaluation=Evaluation(sequence_length=row.length),
        recovery=distillation(row, name, distil_steps),
        gates=Gates(),
        output=Output(layout=request.layout),
        queue="default",
        priority=0,
        metadata={},
    )


def distillation(row: Row, text: str, steps: int) -> Recovery | None:
    """Return how a row is trained, if it is: on a sequence a step, every weight but embeddings and head."""
    if not row.distils:
        return None
    return Recovery(
        method="distill",
        dataset=text,
        steps=steps,
        batch_size=1,
        sequence_length=row.length,
        learning_rate=2e-4,
        lora=None,
        label_weight=row.label_weight or None,
    )


def message(task: str, recipe: Recipe, ground: Ground, output: Path) -> LanguageSpec:
    """Return what a runner is told of a stage of this job, whose artifact is `output`."""
    model = ModelSource(path=ground.model, name=ground.model.name, revision=ground.hash(ground.model))

    def source(path: Path) -> TextSource:
        return TextSource(name=path.stem, path=path, format=detect_format(path), sha256=ground.hash(path))

    told: dict[str, Any] = {
        "task": task,
        "device": "cpu",
        "threads": ground.threads,
        "job": output.name,
        "attempt": 1,
        "recipe": recipe,
        "model": model,
        "work": output.with_name(f"{output.name}.work"),
        "previous": [],
        "artifact": output,
        "calibration": source(ground.calibration) if recipe.calibration else None,
        "generated": source(ground.own_text) if ground.own_text and generates(recipe) else None,
        "evaluation": [],
        "recovery": [source(ground.calibration)] if recipe.recovery else [],
        "teacher": model if recipe.recovery else None,
        "activation_budget_bytes": _ACTIVATION_BYTES,
    }
    return cast(LanguageSpec, SPECS[task].model_validate(told))


def generates(recipe: Recipe) -> bool:
    """Return whether it calibrates on text that the model writes."""
    return bool(recipe.calibration and recipe.calibration.generated)
