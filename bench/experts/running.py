"""Cells of the experts' bench, kept by all they depend on. Loads no torch."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Cell, Program, Runner, cell_key, engine_program, own_release, run
from bench.claims.sources import LanguageFiles
from bench.contest import checkpoint_place
from bench.experts.plan import LAYOUTS, ROWS, SHARES, UPCYCLE_VERSION, WEIGHTS, Plan, Pruning, Recipe
from bench.windows import Windows, model_hash

TRAINING_SEED, TRAINING_LENGTH = 1000, 256
"""Seed of the windows that the mixture is trained on, which no calibration has, and tokens of each."""


@dataclass(frozen=True)
class Sizes:
    """Windows and tokens of each, for calibration and for the text that judges."""

    calibration: int = 16
    calibration_length: int = 256
    held_out: int = 12
    held_out_length: int = 512


@dataclass
class Bench:
    """Makes the mixture and measures the cells of a plan into its fields.

    `texts` are those that the mixture is trained on, of which the first calibrates too.
    """

    plan: Plan
    sizes: Sizes
    recipe: Recipe
    files: LanguageFiles
    texts: Sequence[Path]
    threads: int
    made: dict[str, Any] = field(default_factory=dict)
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    found: dict[Pruning, dict[str, Any]] = field(default_factory=dict)

    def measure(self, runner: Runner) -> None:
        """Recall what is kept, and run what is missing: the mixture, what it is before, and the cells."""
        making = self._making_cell()
        place = (CACHE / "upcycled" / making.key).absolute()
        remade = Runner(is_fresh=not place.exists()) if runner.runs else runner
        made = remade.figures({None: making}, lambda told: f"{told['processor_seconds']:,.0f} processor seconds")
        if not made:
            return
        self.made = made[None]
        dense = {
            layout: self._cell(place, f"{layout}, before", {"method": None, "model": layout}) for layout in LAYOUTS
        }
        self.before = runner.figures(dense, _brief)
        cells = {pruning: self._cell(place, pruning.title, self._spec(pruning)) for pruning in self.plan.prunings()}
        self.found = runner.figures(cells, _brief)

    def _making_cell(self) -> Cell:
        recipe, model = self.recipe, self.files.model.absolute()
        count = -(-recipe.steps * recipe.batch // len(self.texts))
        windows = [Windows(model, text, "calibration", count, TRAINING_LENGTH, TRAINING_SEED) for text in self.texts]
        held_out = self._held_out()
        spec = {"recipe": asdict(recipe), "threads": self.threads}
        facts = {
            "texts": [each.file.parent.name for each in windows],
            "held_out": held_out.file.parent.name,
            "model": model_hash(model),
        }
        key = cell_key(_maker(), spec | facts, "")

        def work() -> dict[str, Any]:
            place = (CACHE / "upcycled" / key).absolute()
            partial = place.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            inputs = {
                "model": str(model),
                "texts": [str(each.written(self.threads)) for each in windows],
                "held_out": str(held_out.written(self.threads)),
                "output": str(partial),
            }
            told = run(_maker(), spec | inputs, key).result
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
            return told

        return Cell("the mixture", key, work)

    def _cell(self, place: Path, title: str, spec: dict[str, Any]) -> Cell:
        facts = spec | asdict(self.sizes) | {"made": place.name, "threads": self.threads}
        key = cell_key(_pruner(), facts, "")

        def work() -> dict[str, Any]:
            with checkpoint_place(key) as output:
                inputs = {
                    "model": str(place / spec["model"]),
                    "held_out": str(self._held_out().written(self.threads)),
                    "output": str(output),
                    "threads": self.threads,
                }
                if spec["method"] is not None:
                    inputs["tokens"] = str(self._calibration(spec["seed"]).written(self.threads))
                    inputs["architecture"] = str(place / f"{cell_key(_pruner(), {}, '')}.architecture.json")
                measured = run(_pruner(), spec | inputs, key)
            return measured.result | {"processor_seconds": measured.processor_seconds}

        return Cell(title, key, work)

    def _spec(self, pruning: Pruning) -> dict[str, Any]:
        row = ROWS[pruning.row]
        removed = round(SHARES[pruning.share] * self.recipe.experts) if pruning.share is not None else 0
        return {
            "model": LAYOUTS[0],
            "method": row.method,
            "parameters": dict(row.parameters) | ({"seed": pruning.seed} if row.drops else {}),
            "removed": removed,
            "sparsity": WEIGHTS,
            "seed": pruning.seed,
        }

    def _held_out(self) -> Windows:
        sizes, model = self.sizes, self.files.model.absolute()
        return Windows(model, self.files.evaluation, "evaluation", sizes.held_out, sizes.held_out_length)

    def _calibration(self, seed: int) -> Windows:
        sizes, model = self.sizes, self.files.model.absolute()
        return Windows(model, self.texts[0], "calibration", sizes.calibration, sizes.calibration_length, seed)


@cache
def _maker() -> Program:
    arguments = (sys.executable, "-m", "bench.cell", "bench.experts.upcycle_cell:work")
    return Program(arguments, f"{own_release()} {UPCYCLE_VERSION}")


@cache
def _pruner() -> Program:
    used = [Path(__file__).parents[1] / f"{name}.py" for name in ("evaluate_cell", "prune_cell")]
    return engine_program("bench.experts.prune_cell:work", used)


def _brief(figures: dict[str, Any]) -> str:
    return f"{figures['perplexity']:.3f}; {figures['processor_seconds']:.0f} processor seconds"
