"""The ground that all cells of the structured bench share, and what the service would make of their bodies. Loads no
torch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.structured.plan import ROWS, TARGETS, Cell, Row
from bench.windows import model_hash
from core.engine.architectures.description import ModelDescription
from core.engine.datasets.formats import detect_format
from core.engine.recovery.request import Recovery
from core.pipeline.messages import TextSource
from core.pipeline.recipes.parts import Output
from core.pipeline.recipes.recipe import Recipe
from secateur_wire.job_body import Calibration, Evaluation, Gates


@dataclass(frozen=True)
class Ground:
    """Ground that all cells share: the model, the texts to calibrate on and to judge by (windows by name), and the
    questions of the tasks. `own_text` is what the model wrote, for those that calibrate on some.
    """

    model: Path
    description: ModelDescription
    calibration: Path
    own_text: Path | None
    texts: Mapping[str, Path]
    tasks: Mapping[str, Path]
    threads: int
    _hashes: dict[Path, str] = field(default_factory=dict)

    def hash(self, path: Path) -> str:
        """Return the hash of a file, or of a model's folder; taken once."""
        if path not in self._hashes:
            self._hashes[path] = model_hash(path) if path.is_dir() else _file_hash(path)
        return self._hashes[path]

    def recipe(self, cell: Cell, distil_steps: int) -> Recipe:
        """Return what the service would make of the row's body."""
        row, name = ROWS[cell.row], self.calibration.stem
        request = row.request(self.description, TARGETS[cell.target].sparsity(self.description))
        calibration = None
        if row.samples:
            drawn, generated = request.parameters.split_calibration(row.samples) or (row.samples, 0)
            calibration = Calibration(
                dataset=name, samples=drawn, sequence_length=row.length, seed=cell.seed, generated=generated or None
            )
        return Recipe(
            model=self.model.name,
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

    def reads(self, cell: Cell, distil_steps: int) -> dict[str, str]:
        """Hashes of what a cell's pruning reads."""
        read = {"model": self.hash(self.model), "calibration": self.hash(self.calibration)}
        if self.own_text and not ROWS[cell.row].baseline and generates(self.recipe(cell, distil_steps)):
            read["own text"] = self.hash(self.own_text)
        return read

    def source(self, path: Path) -> TextSource:
        """A text as a message names it."""
        return TextSource(name=path.stem, path=path, format=detect_format(path), sha256=self.hash(path))


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


def generates(recipe: Recipe) -> bool:
    """Return whether it calibrates on text that the model writes."""
    return bool(recipe.calibration and recipe.calibration.generated)


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
