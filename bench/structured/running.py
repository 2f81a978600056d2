"""The cells of the structured bench: each prunes in a process of its own, another judges what it saved, and shapes are
timed in processes of their own, so that they can be run when the machine has nothing else to do.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bench.cells import (
    CACHE,
    CellFailed,
    Measured,
    cell_key,
    recall,
    remember,
    run,
)
from bench.machine import describe_machine
from bench.structured.figures import Dense, Figures, Ratio
from bench.structured.ground import Ground, generates
from bench.structured.plan import ROWS, TARGETS, Cell, Plan, pruned_alike, refusal
from bench.structured.programs import evaluator, origin, pruner, timer
from bench.structured.results import Results
from core.pipeline.messages import LanguageSpec, ModelSource

ROUNDS = 15
"""Rounds of timing."""
_ACTIVATION_BYTES = 4 * 2**30
_FIGURES = TypeAdapter(Figures)


@dataclass
class Bench:
    """Runs the cells of a plan, or recalls what they gave, into its results; `refused` has why there is no such job."""

    plan: Plan
    ground: Ground
    results: Results = field(default_factory=Results)
    refused: dict[str, str] = field(default_factory=dict)

    def recall(self) -> None:
        """Everything that is kept; runs nothing."""
        for cell in self._possible():
            if (known := recall(self._key(cell))) is not None:
                self.results.found[cell] = _FIGURES.validate_python(known)
            if (known := recall(self._asking_key(cell))) is not None:
                self.results.answers[cell] = known
        for cell, figures in self.results.found.items():
            if (known := recall(self._latency_key(figures))) is not None:
                self.results.latency[cell] = {name: Ratio(**each) for name, each in known.items()}
        if (known := recall(self._asking_key(None))) is not None:
            self.results.answers[None] = known
        if (known := recall(self._dense_key())) is not None:
            self.results.dense = Dense(**known)

    def complete(self, parts: Sequence[str]) -> None:
        """Run what is missing of some of `prune`, `latency` and `tasks`; a cell that fails is told of and left out."""
        if self.results.dense is None:
            key = self._dense_key()
            judged = run(evaluator(), self._judgement(self.ground.model, self.ground.texts, None), key).result
            self.results.dense = Dense(judged["parameters"], judged["perplexity"])
            remember(key, asdict(self.results.dense))
        cells = self._possible()
        if "prune" in parts:
            for alike in pruned_alike(cells):
                self._prune(alike, asks="tasks" in parts)
        work: list[tuple[str, Cell | None, Callable[[], None]]] = [
            *(("latency", cell, partial(self._time, cell)) for cell in cells),
            ("tasks", None, partial(self._ask, None)),
            *(("tasks", cell, partial(self._ask, cell)) for cell in cells),
        ]
        for part, cell, run_cell in work:
            if part in parts:
                with _told(part, cell):
                    run_cell()

    def is_complete(self) -> bool:
        """Return whether every cell of the plan was pruned."""
        return self.results.dense is not None and all(cell in self.results.found for cell in self.plan.cells())

    def _possible(self) -> list[Cell]:
        possible = []
        for cell in self.plan.cells():
            why = refusal(ROWS[cell.row], self.ground.description, TARGETS[cell.target])
            if why is None:
                possible.append(cell)
            else:
                self.refused[f"{cell.row}, {TARGETS[cell.target].title}"] = why
        return possible

    def _prune(self, alike: Sequence[Cell], *, asks: bool) -> None:
        """Prune once for cells that differ in their training alone; train, judge and ask each that was not judged."""
        missing = [cell for cell in alike if cell not in self.results.found]
        if not missing:
            return
        first = missing[0]
        with _told("prune", first), _place(f"untrained-{self._key(first)}") as folder:
            pruned, checkpoint = self._run_pruning(first, folder)
            for cell in missing:
                if not ROWS[cell.row].distils:
                    self._judge(cell, checkpoint, [pruned], asks=asks)
                    continue
                with _told("recover", cell), _place(self._key(cell)) as trained:
                    shutil.copytree(checkpoint, self._message(cell, "recover", trained).pruned)
                    stages = [pruned, self._run_stage(cell, "recover", trained)]
                    self._judge(cell, trained, stages, asks=asks)

    def _judge(self, cell: Cell, folder: Path, stages: Sequence[Measured], *, asks: bool) -> None:
        """Take the figures of a checkpoint that came out of these stages, and keep them; ask it the tasks."""
        key = self._key(cell)
        judged = run(evaluator(), self._judgement(folder, self.ground.texts, None), f"{key}-evaluation").result
        told = stages[0].result
        figures = Figures(
            seconds=told["seconds"]["prune"],
            recovery_seconds=stages[1].result["seconds"]["recover"] if len(stages) > 1 else None,
            processor_seconds=sum(each.processor_seconds for each in stages),
            peak_bytes=max(each.peak_bytes for each in stages),
            parameters=judged["parameters"],
            perplexity=judged["perplexity"],
            config=told.get("config") or judged["config"],
            sliced_width=told.get("sliced_width"),
            notes=told["notes"],
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
            origin=origin(pruner(ROWS[cell.row].baseline), self.ground.threads),
        )
        remember(key, asdict(figures))
        self.results.found[cell] = figures
        texts = ", ".join(f"{value:,.2f} {name}" for name, value in figures.perplexity.items())
        print(f"{cell.title}: {texts}; {figures.processor_seconds:,.0f} processor seconds", flush=True)
        if asks:
            with _told("tasks", cell):
                self._ask_model(cell, folder)

    def _time(self, cell: Cell) -> None:
        """Time the shape of the first seed: those of others differ by less than what can be told apart."""
        figures = self.results.found.get(cell)
        if figures is None or cell.seed or cell in self.results.latency:
            return
        key = self._latency_key(figures)
        known = recall(key)
        if known is None:
            spec = {"model": str(self.ground.model), "threads": self.ground.threads} | self._shape(figures)
            result = run(timer(), spec, key).result
            known = {name: {"ratio": each["ratio"], "spread": each["spread"]} for name, each in result.items()}
            remember(key, known)
        self.results.latency[cell] = {name: Ratio(**each) for name, each in known.items()}
        print(f"{cell.title}: {_brief(self.results.latency[cell])}", flush=True)

    def _ask(self, cell: Cell | None) -> None:
        """Ask the tasks, of the dense model where there is no cell; what was pruned before is pruned again."""
        if cell is None:
            self._ask_model(None, self.ground.model)
        elif self._is_asked(cell):
            with _place(self._asking_key(cell)) as folder:
                self._run_pruning(cell, folder)
                if ROWS[cell.row].distils:
                    self._run_stage(cell, "recover", folder)
                self._ask_model(cell, folder)

    def _ask_model(self, cell: Cell | None, folder: Path) -> None:
        """Ask the tasks of a model in a folder, if they are to be asked and were not yet."""
        if self._is_asked(cell):
            key = self._asking_key(cell)
            judged = run(evaluator(), self._judgement(folder, {}, self.plan.task_limit), f"{key}-evaluation")
            self.results.answers[cell] = judged.result["tasks"]
            remember(key, judged.result["tasks"])

    def _is_asked(self, cell: Cell | None) -> bool:
        wanted = self.plan.task_limit > 0 and (cell is None or self.plan.is_asked(cell))
        return wanted and cell not in self.results.answers

    def _run_pruning(self, cell: Cell, output: Path) -> tuple[Measured, Path]:
        """Prune in a process of its own; return what that told, and the checkpoint, which is not trained yet."""
        row = ROWS[cell.row]
        if not row.baseline:
            return self._run_stage(cell, "prune", output), self._message(cell, "prune", output).pruned
        spec = self._work(cell) | {"model": str(self.ground.model), "text": str(self.ground.calibration)}
        return run(pruner(row.baseline), spec | {"output": str(output)}, output.name), output

    def _run_stage(self, cell: Cell, task: str, output: Path) -> Measured:
        """Run a stage of the cell's job in a process of its own, `recover` in the place of what was pruned."""
        message = self._message(cell, task, output).model_dump(mode="json")
        spec = {"message": message, "threads": self.ground.threads}
        return run(pruner(is_baseline=False), spec, f"{output.name}-{task}")

    def _message(self, cell: Cell, task: str, output: Path) -> LanguageSpec:
        ground, recipe = self.ground, self.ground.recipe(cell, self.plan.distil_steps)
        model = ModelSource(path=ground.model, name=ground.model.name, revision=ground.hash(ground.model))
        calibrates = recipe.calibration is not None
        return LanguageSpec.model_validate(
            {
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
                "calibration": ground.source(ground.calibration) if calibrates else None,
                "generated": ground.source(ground.own_text) if ground.own_text and generates(recipe) else None,
                "evaluation": [],
                "recovery": [ground.source(ground.calibration)] if recipe.recovery else [],
                "teacher": model if recipe.recovery else None,
                "activation_budget_bytes": _ACTIVATION_BYTES,
            }
        )

    def _work(self, cell: Cell) -> dict[str, Any]:
        """Return what the outcome depends on, but for the content of files."""
        row, ground = ROWS[cell.row], self.ground
        if not row.baseline:
            return {"recipe": ground.recipe(cell, self.plan.distil_steps).body(), "threads": ground.threads}
        share = TARGETS[cell.target].of_blocks(ground.description)
        drawn = {"samples": row.samples, "length": row.length, "seed": cell.seed}
        return {"baseline": row.method, "share": share, "threads": ground.threads} | drawn

    def _key(self, cell: Cell) -> str:
        return self._keyed(cell, {"texts": self._hashes(self.ground.texts)})

    def _asking_key(self, cell: Cell | None) -> str:
        facts = {"tasks": self._hashes(self.ground.tasks), "limit": self.plan.task_limit}
        return self._keyed(cell, facts) if cell else self._judging_key(facts)

    def _dense_key(self) -> str:
        return self._judging_key({"texts": self._hashes(self.ground.texts)})

    def _keyed(self, cell: Cell, facts: dict[str, Any]) -> str:
        row, ground = ROWS[cell.row], self.ground
        facts = facts | {"read": ground.reads(cell, self.plan.distil_steps), "evaluator": evaluator().code}
        return cell_key(pruner(row.baseline), self._work(cell) | facts, describe_machine())

    def _judging_key(self, facts: dict[str, Any]) -> str:
        model = self.ground.hash(self.ground.model)
        return cell_key(evaluator(), facts | {"model": model, "threads": self.ground.threads}, describe_machine())

    def _latency_key(self, figures: Figures) -> str:
        facts = {"model": self.ground.hash(self.ground.model), "threads": self.ground.threads}
        return cell_key(timer(), facts | self._shape(figures), describe_machine())

    def _shape(self, figures: Figures) -> dict[str, Any]:
        return {"config": figures.config, "sliced_width": figures.sliced_width, "length": 512, "rounds": ROUNDS}

    def _hashes(self, files: Mapping[str, Path]) -> dict[str, str]:
        return {name: self.ground.hash(file) for name, file in files.items()}

    def _judgement(self, model: Path, texts: Mapping[str, Path], task_limit: int | None) -> dict[str, Any]:
        return {
            "model": str(model),
            "texts": {name: str(file) for name, file in texts.items()},
            "tasks": {name: str(file) for name, file in self.ground.tasks.items()} if task_limit else {},
            "task_limit": task_limit,
            "threads": self.ground.threads,
        }


@contextmanager
def _told(part: str, cell: Cell | None) -> Iterator[None]:
    """Tell of a cell that fails, in place of ending the bench."""
    try:
        yield
    except CellFailed as failure:
        print(f"{cell.title if cell else 'dense'}: {part} failed: {failure}", file=sys.stderr, flush=True)


@contextmanager
def _place(key: str) -> Iterator[Path]:
    """The place of a checkpoint for a while, with nothing in it yet."""
    output = (CACHE / "checkpoints" / key).absolute()
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield output
    finally:
        for left in output.parent.glob(f"{key}*"):  # and what was in work, where the process was ended
            shutil.rmtree(left, ignore_errors=True)


def _brief(latency: Mapping[str, Ratio]) -> str:
    return ", ".join(f"{name} {each.ratio:.3f} ± {each.spread:.3f}" for name, each in latency.items())
