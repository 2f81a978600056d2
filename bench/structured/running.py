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

from bench.cells import Cell, Measured, Program, Runner, cell_key, engine_program, own_release, recalled, run
from bench.contest import Ground, checkpoint_place
from bench.machine import describe_machine
from bench.structured.plan import ROWS, TARGETS, Plan, Pruning, pruned_alike, refusal
from bench.structured.recipes import generates, message, recipe_of
from bench.structured.results import Dense, Figures, Origin, Ratio, Results

ROUNDS = 15
"""Rounds of timing."""
_JUDGING = [Path(__file__).parent.parent / "evaluate_cell.py"]
_FIGURES = TypeAdapter(Figures)


@cache
def pruner() -> Program:
    """Return what prunes, and trains, a row."""
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
    _pruned: dict[Pruning, tuple[Path, list[Measured]]] = field(default_factory=dict)
    _places: ExitStack = field(default_factory=ExitStack)

    def measure(self, parts: Sequence[str]) -> None:
        """Recall everything that is kept, and run what is missing of some of `prune`, `latency` and `tasks`."""
        prunings = [pruning for alike in pruned_alike(self._possible()) for pruning in alike]
        dense = {("prune", None): self._dense_cell()} | self._asking_cell(None)
        work: dict[tuple[str, Pruning | None], Cell] = {}
        for pruning in prunings:
            work |= self._pruning_cell(pruning) | self._asking_cell(pruning)
        wanted = {key: each for key, each in work.items() if key[0] in parts}
        kept: dict[tuple[str, Pruning | None], dict[str, Any]] = recalled(dense | work)
        if parts:
            asked = {key: each for key, each in dense.items() if key[0] in ("prune", *parts)}
            with self._places:
                kept |= self.runner.figures(asked | wanted, _brief)
            self._pruned.clear()
        for (part, measured), figures in kept.items():
            if part == "tasks":
                self.results.answers[measured] = figures
            elif measured is None:
                self.results.dense = Dense(**figures)
            else:
                self.results.found[measured] = _FIGURES.validate_python(figures)
        timed = [pruning for pruning in prunings if pruning in self.results.found and not pruning.seed]
        timing = {pruning: self._timing_cell(pruning) for pruning in timed}
        times = self.runner.figures(timing, _brief) if "latency" in parts else recalled(timing)
        for pruning, figures in times.items():
            ratios = {name: Ratio(each["ratio"], each["spread"]) for name, each in figures.items()}
            self.results.latency[pruning] = ratios

    def is_complete(self) -> bool:
        """Return whether every cell of the plan was pruned."""
        return self.results.dense is not None and all(pruning in self.results.found for pruning in self.plan.prunings())

    def _possible(self) -> list[Pruning]:
        possible = []
        for pruning in self.plan.prunings():
            why = refusal(ROWS[pruning.row], self.ground.description, TARGETS[pruning.target])
            if why is None:
                possible.append(pruning)
            else:
                self.refused[f"{pruning.row}, {TARGETS[pruning.target].title}"] = why
        return possible

    def _dense_cell(self) -> Cell:
        key = self._key(None, {"texts": self.ground.hashes(self.ground.texts)})

        def work() -> dict[str, Any]:
            judged = self.ground.judge(judging("evaluate"), self.ground.model, key, self.ground.texts).result
            return {"parameters": judged["parameters"], "perplexity": judged["perplexity"]}

        return Cell("the dense model", key, work)

    def _pruning_cell(self, pruning: Pruning) -> dict[tuple[str, Pruning | None], Cell]:
        key = self._key(pruning, {"texts": self.ground.hashes(self.ground.texts)})

        def work() -> dict[str, Any]:
            folder, stages = self._checkpoint(pruning)
            judged = self.ground.judge(judging("evaluate"), folder, key, self.ground.texts).result
            told, program = stages[0].result, pruner()
            figures = Figures(
                seconds=told["seconds"]["prune"],
                recovery_seconds=stages[1].result["seconds"]["recover"] if len(stages) > 1 else None,
                processor_seconds=sum(each.processor_seconds for each in stages),
                peak_bytes=max(each.peak_bytes for each in stages),
                parameters=judged["parameters"],
                perplexity=judged["perplexity"],
                config=judged["config"],
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

        return {("prune", pruning): Cell(pruning.title, key, work)}

    def _asking_cell(self, pruning: Pruning | None) -> dict[tuple[str, Pruning | None], Cell]:
        """Return the cell that asks the tasks, of the dense model where there is no other, if they are to be asked."""
        limit = self.plan.task_limit
        if not limit or (pruning is not None and not self.plan.is_asked(pruning)):
            return {}
        key = self._key(pruning, {"tasks": self.ground.hashes(self.ground.tasks), "limit": limit})

        def work() -> dict[str, Any]:
            folder = self.ground.model if pruning is None else self._checkpoint(pruning)[0]
            return dict(self.ground.judge(judging("evaluate"), folder, key, {}, limit).result["tasks"])

        return {("tasks", pruning): Cell(f"{pruning.title if pruning else 'the dense model'}: tasks", key, work)}

    def _timing_cell(self, pruning: Pruning) -> Cell:
        """Return the cell that times a shape; of the first seed, as others differ by less than can be told apart."""
        figures, ground = self.results.found[pruning], self.ground
        shape = {"config": figures.config, "length": 512, "rounds": ROUNDS}
        spec = shape | {"threads": ground.threads}
        program = judging("measure_speed")
        key = cell_key(program, spec | {"model": ground.hash(ground.model)}, describe_machine())
        return Cell(
            f"{pruning.title}: latency", key, lambda: run(program, spec | {"model": str(ground.model)}, key).result
        )

    def _checkpoint(self, pruning: Pruning) -> tuple[Path, list[Measured]]:
        """Return the checkpoint of a cell and what the processes of its stages told.

        It is there until one is asked for that is pruned otherwise: cells that differ in their training alone are
        pruned once, and tasks are asked of what was judged.
        """
        if pruning in self._pruned:
            return self._pruned[pruning]
        if pruning.untrained not in self._pruned:
            self._places.close()
            self._pruned.clear()
            output = self._places.enter_context(checkpoint_place(f"untrained-{self._key(pruning, {})}"))
            self._pruned[pruning.untrained] = self._run_pruning(pruning, output)
        checkpoint, stages = self._pruned[pruning.untrained]
        if ROWS[pruning.row].distils:
            output = self._places.enter_context(checkpoint_place(self._key(pruning, {})))
            told = message("recover", self._recipe(pruning), self.ground, output)
            shutil.copytree(checkpoint, told.pruned)
            self._pruned[pruning] = (
                output,
                [*stages, self._run_stage(told.model_dump(mode="json"), f"{output.name}-recover")],
            )
        return self._pruned[pruning]

    def _run_pruning(self, pruning: Pruning, output: Path) -> tuple[Path, list[Measured]]:
        told = message("prune", self._recipe(pruning), self.ground, output)
        return told.pruned, [self._run_stage(told.model_dump(mode="json"), f"{output.name}-prune")]

    def _run_stage(self, told: dict[str, Any], key: str) -> Measured:
        return run(pruner(), {"message": told, "threads": self.ground.threads}, key)

    def _recipe(self, pruning: Pruning) -> Any:
        return recipe_of(pruning, self.ground, self.plan.distil_steps)

    def _work(self, pruning: Pruning) -> dict[str, Any]:
        """Return what the outcome depends on, but for the content of files."""
        return {"recipe": self._recipe(pruning).body(), "threads": self.ground.threads}

    def _key(self, pruning: Pruning | None, judged_by: Mapping[str, Any]) -> str:
        """Return the name of figures that depend on a cell, on no cell of the dense model's, and on what judges."""
        ground, evaluator = self.ground, judging("evaluate")
        facts = {
            "model": ground.hash(ground.model),
            "threads": ground.threads,
            "evaluator": evaluator.code,
            **judged_by,
        }
        if pruning is None:
            return cell_key(evaluator, facts, describe_machine())
        facts["calibration"] = ground.hash(ground.calibration)
        if ground.own_text and generates(self._recipe(pruning)):
            facts["own text"] = ground.hash(ground.own_text)
        return cell_key(pruner(), self._work(pruning) | facts, describe_machine())


def _brief(figures: Mapping[str, Any]) -> str:
    """Return the words for figures of any part."""
    if "perplexity" in figures:
        texts = ", ".join(f"{value:,.2f} {name}" for name, value in figures["perplexity"].items())
        seconds = figures.get("processor_seconds")
        return texts if seconds is None else f"{texts}; {seconds:,.0f} processor seconds"
    if "prefill" in figures:
        return ", ".join(f"{name} {each['ratio']:.3f} ± {each['spread']:.3f}" for name, each in figures.items())
    return f"{len(figures)} tasks"
