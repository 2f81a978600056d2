"""Cells of the experts' study, kept by all they depend on: the mixture, what it is before, and what is pruned.

Loads no torch.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from bench.cells import CACHE, Cell, Figures, Program, cell_key, engine_program, own_release, recall, run
from bench.claims.sources import LanguageFiles, fetch_language_files
from bench.contest import Contest, checkpoint_place
from bench.experts.plan import LAYOUTS, UPCYCLE_VERSION, Recipe
from bench.handbook import write_handbook
from bench.windows import Windows, model_hash
from core.settings import Settings

_TRAINING_SEED, _TRAINING_LENGTH = 1000, 256
"""Seed of the windows that the mixture is trained on, which no calibration has, and tokens of each."""
_SIZES: Final = {"calibration": 16, "calibration_length": 256, "held_out": 12, "held_out_length": 512}
"""Windows and tokens of each, for calibration and for the text that judges."""


def prepare(spec: Mapping[str, Any], bodies: Sequence[Mapping[str, Any]], threads: int) -> Contest:
    """Return the cells of bodies: a method, its parameters, and the experts `removed` or the `sparsity` of weights.

    The spec changes the recipe of the mixture. Raises MissingData.
    """
    files, handbook = LanguageFiles.of(Settings()), (CACHE / "handbook.jsonl").absolute()
    fetch_language_files(print)
    write_handbook(handbook)
    bench = _Bench(files.model.absolute(), files, [files.calibration.absolute(), handbook], Recipe(**spec), threads)
    return Contest(bench.pruned, {"mixture": bench.making, **bench.before}, bench.facts)


class _Bench:
    """Cells of one recipe; `texts` are those that the mixture is trained on, of which the first calibrates too."""

    def __init__(self, model: Path, files: LanguageFiles, texts: Sequence[Path], recipe: Recipe, threads: int) -> None:
        self._model, self._texts, self._recipe, self._threads = model, texts, recipe, threads
        sizes = _SIZES["held_out"], _SIZES["held_out_length"]
        self._held_out = Windows(model, files.evaluation, "evaluation", *sizes)
        self.making = self._making()
        self._place = (CACHE / "upcycled" / self.making.key).absolute()
        self.before = {
            f"{each}, before": self._cell(f"{each}, before", {"method": None, "model": each}) for each in LAYOUTS
        }
        trained = recipe.steps * recipe.batch * _TRAINING_LENGTH
        self.facts = [
            f"The mixture is made from {model.name} with {asdict(recipe)}. It is trained on {trained:,} tokens of "
            f"{' and '.join(text.stem for text in texts)} in turn.",
            f"The methods calibrate on {_SIZES['calibration']} × {_SIZES['calibration_length']} tokens of "
            f"{texts[0].stem}, which the seed chooses. Models are measured on {sizes[0]} × {sizes[1]} tokens of "
            f"{files.evaluation.stem} by the stock class in bfloat16, in {threads} thread(s).",
        ]

    def pruned(self, title: str, body: Mapping[str, Any]) -> Cell:
        """Return the cell of a body, whose figures also have the excess, ln(perplexity ÷ before)."""
        return self._cell(title, spec_of(body))

    def _making(self) -> Cell:
        recipe, threads = self._recipe, self._threads
        count = -(-recipe.steps * recipe.batch // len(self._texts))
        windows = [
            Windows(self._model, text, "calibration", count, _TRAINING_LENGTH, _TRAINING_SEED) for text in self._texts
        ]
        spec = {"recipe": asdict(recipe), "threads": threads}
        facts = {
            "texts": [each.file.parent.name for each in windows],
            "held_out": self._held_out.file.parent.name,
            "model": model_hash(self._model),
        }
        key = cell_key(_maker(), spec | facts, "")

        def work() -> Figures:
            partial = self._place.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            inputs = {
                "model": str(self._model),
                "texts": [str(each.written(threads)) for each in windows],
                "held_out": str(self._held_out.written(threads)),
                "output": str(partial),
            }
            made = run(_maker(), spec | inputs, key).result
            shutil.rmtree(self._place, ignore_errors=True)
            partial.rename(self._place)
            return made | {"first_loss": fmean(made["losses"][:5]), "last_loss": fmean(made["losses"][-5:])}

        return Cell("the mixture", key, work)

    def _cell(self, title: str, spec: dict[str, Any]) -> Cell:
        facts = spec | _SIZES | {"made": self._place.name, "threads": self._threads}
        key = cell_key(_pruner(), facts, "")

        def work() -> Figures:
            if not self._place.exists():
                self.making.work()
            with checkpoint_place(key) as output:
                inputs = {
                    "model": str(self._place / spec["model"]),
                    "held_out": str(self._held_out.written(self._threads)),
                    "output": str(output),
                    "threads": self._threads,
                }
                if spec["method"] is not None:
                    inputs["tokens"] = str(self._calibration(spec["seed"]).written(self._threads))
                    inputs["architecture"] = str(self._place / f"{cell_key(_pruner(), {}, '')}.architecture.json")
                done = run(_pruner(), spec | inputs, key)
            busiest = fmean(max(each) * len(each) / sum(each) for each in done.result["reached"])
            figures = done.result | {"processor_seconds": done.processor_seconds, "busiest": busiest}
            before = recall(self.before[f"{LAYOUTS[0]}, before"].key) or figures
            return figures | {"excess": [log(figures["perplexity"] / before["perplexity"])]}

        return Cell(title, key, work)

    def _calibration(self, seed: int) -> Windows:
        sizes = _SIZES["calibration"], _SIZES["calibration_length"]
        return Windows(self._model, self._texts[0], "calibration", *sizes, seed)


def spec_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the process of a body is told; scores of experts are drawn by the seed too."""
    seed, removed = body["calibration"]["seed"], body.get("removed", 0)
    parameters = dict(body.get("parameters", {})) | ({"seed": seed} if removed else {})
    return {
        "model": LAYOUTS[0],
        "method": body["method"],
        "parameters": parameters,
        "removed": removed,
        "sparsity": body["sparsity"],
        "seed": seed,
    }


@cache
def _maker() -> Program:
    arguments = (sys.executable, "-m", "bench.cell", "bench.experts.upcycle_cell:work")
    return Program(arguments, f"{own_release()} {UPCYCLE_VERSION}")


@cache
def _pruner() -> Program:
    used = [Path(__file__), *(Path(__file__).parents[1] / f"{name}.py" for name in ("evaluate_cell", "prune_cell"))]
    return engine_program("bench.experts.prune_cell:work", used)
