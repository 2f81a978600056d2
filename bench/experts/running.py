"""The cells of the experts' bench, run one after the other in this process and kept by all they depend on."""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Program, cell_key, engine_program, own_release, recall, remember, run
from bench.claims.sources import LanguageFiles
from bench.experts import prune_cell
from bench.experts.plan import ROWS, SHARES, WEIGHTS, Cell, Plan
from bench.experts.upcycle import UPCYCLE_VERSION, Recipe
from bench.experts.upcycle_cell import LAYOUTS
from bench.windows import Windows, model_hash
from core.engine.architectures.discovered import architectures
from core.engine.checkpoints.files import CONFIG_FILE, SINGLE_FILE
from core.engine.checkpoints.safetensors_header import read_header
from core.pipeline.stages.discover import discover_and_test

_HERE = Path(__file__).parent
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
    """Makes the mixture, runs the cells of a plan, or recalls what they gave, into its fields.

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
    found: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    key: str = ""
    place: Path = Path()

    def make(self) -> None:
        """Make the mixture where it is not there yet, and judge it; raises CellFailed."""
        making = self._making_spec()
        key = cell_key(_maker(), self._facts(making), "")
        self.key, self.place = key, (CACHE / "upcycled" / key).absolute()
        known = recall(key)
        if known is None or not self.place.exists():
            partial = self.place.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            known = run(_maker(), making | {"output": str(partial)}, key).result
            shutil.rmtree(self.place, ignore_errors=True)
            partial.rename(self.place)
            remember(key, known)
        self.made = known
        for layout in LAYOUTS:
            spec = {"method": None, "model": layout}
            self.before[layout] = self._recalled(spec) or self._run(f"{layout}, before", spec)

    def complete(self) -> None:
        """Run the cells that are missing."""
        for cell in self.plan.cells():
            spec = self._spec(cell)
            self.found[cell] = self._recalled(spec) or self._run(cell.title, spec)

    def recall(self) -> None:
        """Recall the cells that are kept; runs nothing."""
        for cell in self.plan.cells():
            if known := self._recalled(self._spec(cell)):
                self.found[cell] = known

    def _run(self, title: str, spec: dict[str, Any]) -> dict[str, Any]:
        key = self._key(spec)
        output = (CACHE / "checkpoints" / key).absolute()
        output.parent.mkdir(parents=True, exist_ok=True)
        inputs = {"model": str(self.place / spec["model"]), "held_out": str(self._held_out()), "output": str(output)}
        if spec["method"] is not None:
            inputs["tokens"] = str(self._calibration(spec["seed"]).written(self.threads))
            inputs["architecture"] = str(self._architecture())
        begun = time.process_time()
        figures = prune_cell.work(spec | inputs)
        figures["processor_seconds"] = time.process_time() - begun
        remember(key, figures)
        print(f"{title}: {figures['perplexity']:.3f}; {figures['processor_seconds']:.0f} processor seconds", flush=True)
        return figures

    def _spec(self, cell: Cell) -> dict[str, Any]:
        row = ROWS[cell.row]
        removed = round(SHARES[cell.share] * self.recipe.experts) if cell.share is not None else 0
        return {
            "model": LAYOUTS[0],
            "method": row.method,
            "parameters": dict(row.parameters) | ({"seed": cell.seed} if row.drops else {}),
            "removed": removed,
            "sparsity": WEIGHTS,
            "seed": cell.seed,
        }

    def _recalled(self, spec: dict[str, Any]) -> dict[str, Any] | None:
        return recall(self._key(spec))

    def _key(self, spec: dict[str, Any]) -> str:
        return cell_key(_pruner(), spec | asdict(self.sizes) | {"made": self.key, "threads": self.threads}, "")

    def _architecture(self) -> Path:
        """Return the file of what a worker discovers of the mixture, once it is there."""
        file = self.place / f"{cell_key(_pruner(), {}, '')}.architecture.json"
        if not file.exists():
            folder = self.place / LAYOUTS[0]
            config = json.loads((folder / CONFIG_FILE).read_bytes())
            found = discover_and_test(config, read_header(folder / SINGLE_FILE))
            file.write_bytes(architectures.dump_json(found))
        return file

    def _making_spec(self) -> dict[str, Any]:
        recipe = self.recipe
        windows = -(-recipe.steps * recipe.batch // len(self.texts))
        texts = [
            Windows(self.files.model.absolute(), text, "calibration", windows, TRAINING_LENGTH, TRAINING_SEED)
            for text in self.texts
        ]
        return {
            "recipe": asdict(recipe),
            "model": str(self.files.model.absolute()),
            "texts": [str(each.written(self.threads)) for each in texts],
            "held_out": str(self._held_out()),
            "threads": self.threads,
        }

    def _facts(self, making: dict[str, Any]) -> dict[str, Any]:
        """Return what the mixture depends on; the folders of windows are named by their content."""
        return {
            "recipe": making["recipe"],
            "texts": [Path(each).parent.name for each in making["texts"]],
            "held_out": Path(making["held_out"]).parent.name,
            "model": model_hash(self.files.model),
            "threads": making["threads"],
        }

    def _held_out(self) -> Path:
        sizes = self.sizes
        text = self.files.evaluation
        model = self.files.model.absolute()
        return Windows(model, text, "evaluation", sizes.held_out, sizes.held_out_length).written(self.threads)

    def _calibration(self, seed: int) -> Windows:
        sizes, model = self.sizes, self.files.model.absolute()
        return Windows(model, self.texts[0], "calibration", sizes.calibration, sizes.calibration_length, seed)


@cache
def _maker() -> Program:
    return Program((sys.executable, "-m", "bench.experts.upcycle_cell"), f"{own_release()} {UPCYCLE_VERSION}")


@cache
def _pruner() -> Program:
    return engine_program("bench.experts.prune_cell", [_HERE.parent / "evaluate_cell.py"])
