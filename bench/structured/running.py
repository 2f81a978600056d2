"""Cells of the structured bench: each prunes in a process of its own, and another judges what it saved.

Shapes are timed in processes of their own, so that they can be run when the machine has nothing else to do.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bench.cells import Cell as RunnerCell
from bench.cells import Measured, Program, Runner, cell_key, engine_program, own_release, recalled, run
from bench.contest import Ground, checkpoint_place
from bench.machine import describe_machine
from bench.structured.plan import ROWS, TARGETS, Cell, Plan, pruned_alike, refusal
from bench.structured.recipes import generates, message, recipe_of
from bench.structured.results import Dense, Figures, Origin, Ratio, Results

ROUNDS = 15
"""Rounds of timing."""
_HERE = Path(__file__).parent
_BASELINES = sorted((_HERE / "baselines").glob("*.py"))
_JUDGING = [_HERE.parent / "evaluate_cell.py", *_BASELINES]
_FIGURES = TypeAdapter(Figures)


@cache
def pruner(is_baseline: bool) -> Program:
    """Return what prunes, and trains, a row: the engine, or a baseline of this bench."""
    if is_baseline:
        return engine_program("bench.structured.baselines.cell:prune", _BASELINES)
    return engine_program("bench.structured.prune_cell:work")


@cache
def judging(function: str) -> Program:
    """Return what judges a checkpoint (`evaluate`), or times a shape (`measure_speed`)."""
    return engine_program(f"bench.structured.judge_cell:{function}", _JUDGING)


@dataclass
class Bench:
    """Measures a plan into its results; `refused` has why there is no such job."""

    plan: Plan
    ground: Ground
    runner: Runner = field(default_factory=Runner)
    results: Results = field(default_factory=Results)
    refused: dict[str, str] = field(default_factory=dict)
    _pruned: dict[Cell, tuple[Path, list[Measured]]] = field(default_factory=dict)
    _places: ExitStack = field(default_factory=ExitStack)

    def measure(self, parts: Sequence[str]) -> None:
        """Recall everything that is kept, and run what is missing of some of `prune`, `latency` and `tasks`."""
        cells = [cell for alike in pruned_alike(self._possible()) for cell in alike]
        dense = {("prune", None): self._dense_cell()} | self._asking_cell(None)
        work = {
            key: each for cell in cells for key, each in (self._pruning_cell(cell) | self._asking_cell(cell)).items()
        }
        wanted = {key: each for key, each in work.items() if key[0] in parts}
        kept: dict[tuple[str, Cell | None], dict[str, Any]] = recalled(dense | work)
        if parts:
            asked = {key: each for key, each in dense.items() if key[0] in ("prune", *parts)}
            with self._places:
                kept |= self.runner.figures(asked | wanted, _brief)
        for (part, cell), figures in kept.items():
            if part == "tasks":
                self.results.answers[cell] = figures
            elif cell is None:
                self.results.dense = Dense(**figures)
            else:
                self.results.found[cell] = _FIGURES.validate_python(figures)
        timing = {cell: self._timing_cell(cell) for cell in cells if cell in self.results.found and not cell.seed}
        times = self.runner.figures(timing, _brief) if "latency" in parts else recalled(timing)
        for cell, figures in times.items():
            self.results.latency[cell] = {name: Ratio(each["ratio"], each["spread"]) for name, each in figures.items()}

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

    def _dense_cell(self) -> RunnerCell:
        key = self._key(None, {"texts": self.ground.hashes(self.ground.texts)})

        def work() -> dict[str, Any]:
            judged = self.ground.judge(judging("evaluate"), self.ground.model, key, self.ground.texts).result
            return {"parameters": judged["parameters"], "perplexity": judged["perplexity"]}

        return RunnerCell("the dense model", key, work)

    def _pruning_cell(self, cell: Cell) -> dict[tuple[str, Cell | None], RunnerCell]:
        key = self._key(cell, {"texts": self.ground.hashes(self.ground.texts)})

        def work() -> dict[str, Any]:
            folder, stages = self._checkpoint(cell)
            judged = self.ground.judge(judging("evaluate"), folder, key, self.ground.texts).result
            told, program = stages[0].result, pruner(ROWS[cell.row].baseline)
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
                origin=Origin(
                    describe_machine(),
                    self.ground.threads,
                    own_release(),
                    program.code.removeprefix(f"{own_release()} "),
                ),
            )
            return asdict(figures)

        return {("prune", cell): RunnerCell(cell.title, key, work)}

    def _asking_cell(self, cell: Cell | None) -> dict[tuple[str, Cell | None], RunnerCell]:
        """Return the cell that asks the tasks, of the dense model where there is no other, if they are to be asked."""
        limit = self.plan.task_limit
        if not limit or (cell is not None and not self.plan.is_asked(cell)):
            return {}
        key = self._key(cell, {"tasks": self.ground.hashes(self.ground.tasks), "limit": limit})

        def work() -> dict[str, Any]:
            folder = self.ground.model if cell is None else self._checkpoint(cell)[0]
            return dict(self.ground.judge(judging("evaluate"), folder, key, {}, limit).result["tasks"])

        return {("tasks", cell): RunnerCell(f"{cell.title if cell else 'the dense model'}: tasks", key, work)}

    def _timing_cell(self, cell: Cell) -> RunnerCell:
        """Return the cell that times a shape; of the first seed, as others differ by less than can be told apart."""
        figures, ground = self.results.found[cell], self.ground
        shape = {"config": figures.config, "sliced_width": figures.sliced_width, "length": 512, "rounds": ROUNDS}
        spec = shape | {"threads": ground.threads}
        program = judging("measure_speed")
        key = cell_key(program, spec | {"model": ground.hash(ground.model)}, describe_machine())
        return RunnerCell(
            f"{cell.title}: latency", key, lambda: run(program, spec | {"model": str(ground.model)}, key).result
        )

    def _checkpoint(self, cell: Cell) -> tuple[Path, list[Measured]]:
        """Return the checkpoint of a cell and what the processes of its stages told.

        It is there until one is asked for that is pruned otherwise: cells that differ in their training alone are
        pruned once, and tasks are asked of what was judged.
        """
        if cell in self._pruned:
            return self._pruned[cell]
        if cell.untrained not in self._pruned:
            self._places.close()
            self._pruned.clear()
            output = self._places.enter_context(checkpoint_place(f"untrained-{self._key(cell, {})}"))
            self._pruned[cell.untrained] = self._run_pruning(cell, output)
        checkpoint, stages = self._pruned[cell.untrained]
        if ROWS[cell.row].distils:
            output = self._places.enter_context(checkpoint_place(self._key(cell, {})))
            told = message("recover", self._recipe(cell), self.ground, output)
            shutil.copytree(checkpoint, told.pruned)
            self._pruned[cell] = (
                output,
                [*stages, self._run_stage(told.model_dump(mode="json"), f"{output.name}-recover")],
            )
        return self._pruned[cell]

    def _run_pruning(self, cell: Cell, output: Path) -> tuple[Path, list[Measured]]:
        row, ground = ROWS[cell.row], self.ground
        if row.baseline:
            paths = {"model": str(ground.model), "text": str(ground.calibration), "output": str(output)}
            return output, [run(pruner(is_baseline=True), self._work(cell) | paths, output.name)]
        told = message("prune", self._recipe(cell), ground, output)
        return told.pruned, [self._run_stage(told.model_dump(mode="json"), f"{output.name}-prune")]

    def _run_stage(self, told: dict[str, Any], key: str) -> Measured:
        return run(pruner(is_baseline=False), {"message": told, "threads": self.ground.threads}, key)

    def _recipe(self, cell: Cell) -> Any:
        return recipe_of(cell, self.ground, self.plan.distil_steps)

    def _work(self, cell: Cell) -> dict[str, Any]:
        """Return what the outcome depends on, but for the content of files."""
        row, ground = ROWS[cell.row], self.ground
        if not row.baseline:
            return {"recipe": self._recipe(cell).body(), "threads": ground.threads}
        share = TARGETS[cell.target].of_blocks(ground.description)
        drawn = {"samples": row.samples, "length": row.length, "seed": cell.seed}
        return {"baseline": row.method, "share": share, "threads": ground.threads} | drawn

    def _key(self, cell: Cell | None, judged_by: Mapping[str, Any]) -> str:
        """Return the name of figures that depend on a cell, on no cell of the dense model's, and on what judges."""
        ground, evaluator = self.ground, judging("evaluate")
        facts = {
            "model": ground.hash(ground.model),
            "threads": ground.threads,
            "evaluator": evaluator.code,
            **judged_by,
        }
        if cell is None:
            return cell_key(evaluator, facts, describe_machine())
        row = ROWS[cell.row]
        facts["calibration"] = ground.hash(ground.calibration)
        if ground.own_text and not row.baseline and generates(self._recipe(cell)):
            facts["own text"] = ground.hash(ground.own_text)
        return cell_key(pruner(row.baseline), self._work(cell) | facts, describe_machine())


def _brief(figures: Mapping[str, Any]) -> str:
    """Return the words for figures of any part."""
    if "perplexity" in figures:
        texts = ", ".join(f"{value:,.2f} {name}" for name, value in figures["perplexity"].items())
        seconds = figures.get("processor_seconds")
        return texts if seconds is None else f"{texts}; {seconds:,.0f} processor seconds"
    if "prefill" in figures:
        return ", ".join(f"{name} {each['ratio']:.3f} ± {each['spread']:.3f}" for name, each in figures.items())
    return f"{len(figures)} tasks"
