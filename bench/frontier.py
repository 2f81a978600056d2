"""What fits towards the dense model win over SparseGPT, and what they cost: `python -m bench.frontier [--write PAGE]`.

Every cell prunes in a process of its own, and another judges the checkpoint it saved, llm-compressor's as ours:
perplexity on text like that it was calibrated on and on text unlike it, and zero-shot tasks. A cell that was measured
on this machine with this code is not measured again, so that the command goes on where it was ended; Ctrl-C shows what
there is.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cells import Cell, CellFailed, Runner, own_release
from bench.claims.sources import LanguageFiles, MissingData
from bench.contest import Contender, Figures, Ground, brief, contest_cell, dense_cell, own_contender, peer_or_nothing
from bench.frontier_plan import REFERENCE, SETTINGS, TARGETS, Plan, Pruning
from bench.frontier_report import measured, page
from bench.judging_texts import positive, task_copies, write_texts
from bench.machine import describe_machine, threads_available
from bench.measurements import merge
from bench.page import show
from bench.windows import SELF_WINDOWS, SelfText, Windows
from core.measurements.measurement import MeasuredModel
from core.settings import Settings
from worker.samples.zero_shot import add_task_samples

SECTION = "bench-frontier"


def cells_of(plan: Plan, ground: Ground, length: int, contenders: Mapping[str, Contender]) -> dict[Pruning, Cell]:
    """Return the cells of a plan, calibrated on windows of `length` tokens; none of a setting without a contender."""
    cells = {}
    for pruning in plan.prunings():
        setting, contender = SETTINGS[pruning.setting], contenders.get(pruning.setting)
        if contender is None:
            continue
        if setting.draws:
            contender = own_contender(setting.title, {**setting.parameters, "seed": pruning.seed})
        drawn, generated = setting.sequences(pruning.samples)
        windows = Windows(ground.model, ground.calibration, "calibration", drawn, length, pruning.seed, generated)
        limit = plan.task_limit if plan.is_asked(pruning) else None
        job = TARGETS[pruning.target].job(setting.method)
        cells[pruning] = contest_cell(pruning.title, contender, job, ground, windows, task_limit=limit)
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    runner = Runner.of(given)
    plan = Plan(
        settings=given.settings,
        targets=given.targets,
        seeds=given.seeds,
        samples=given.samples,
        compared=[title for title in given.compared if title in given.settings],
        sizes=sorted(set(given.calibration_sizes)),
        size_seeds=given.size_seeds,
        task_limit=given.task_limit,
        task_targets=given.task_targets,
    )
    try:
        ground, contenders, facts = _prepare(given, plan)
    except (MissingData, CellFailed) as error:
        print(error, file=sys.stderr)
        return 1
    dense = runner.figures({None: dense_cell(ground, plan.task_limit if ground.tasks else None)}).get(None)
    kept = runner.figures(cells_of(plan, ground, given.length, contenders), brief)
    found = {pruning: Figures.of(figures) for pruning, figures in kept.items()}
    command = f"python -m bench.frontier {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    show(page(found, plan, dense, [*facts, f"`{command}`"]), SECTION, given.write)
    if given.data and dense is not None:
        described = ground.description
        model = MeasuredModel(name=ground.model.name, family=described.family, parameters=described.parameters)
        merge(given.data, measured(found, plan, dense, model, length=given.length, threads=given.threads))
    return int(dense is None or any(pruning not in found for pruning in plan.prunings()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.frontier", description=__doc__.splitlines()[0])
    usual = [setting.title for setting in SETTINGS.values() if not setting.grid]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=usual, help="rows")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="columns")
    parser.add_argument("--seeds", type=positive, default=3, help="draws of calibration windows (default 3)")
    parser.add_argument("--samples", type=positive, default=32, help="calibration windows (default 32)")
    parser.add_argument("--length", type=positive, default=512, help="tokens of a window (default 512)")
    parser.add_argument(
        "--windows", type=positive, default=16, help="windows of each text that is judged by (default 16)"
    )
    parser.add_argument(
        "--compared",
        nargs="+",
        choices=SETTINGS,
        default=[REFERENCE, "frontier"],
        help="settings of the tables over calibration sizes and tasks, where they are among the rows",
    )
    parser.add_argument(
        "--calibration-sizes", nargs="*", type=positive, default=[8, 32, 128, 512], help="none: no such table"
    )
    parser.add_argument(
        "--size-seeds", type=positive, default=1, help="of the seeds, those that vary the sizes (default 1)"
    )
    parser.add_argument("--task-limit", type=int, default=100, help="questions of each zero-shot task; 0: none asked")
    parser.add_argument(
        "--task-targets",
        nargs="+",
        choices=TARGETS,
        default=["50", "2:4"],
        help="columns whose models are asked the tasks (default 50 2:4)",
    )
    parser.add_argument("--threads", type=positive, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="put the figures among the measurements of a file too"
    )
    return parser


def _prepare(given: argparse.Namespace, plan: Plan) -> tuple[Ground, dict[str, Contender], list[str]]:
    """Return the ground, who runs each setting, and what the page says of that; raises MissingData, CellFailed."""
    settings = Settings()
    files = LanguageFiles.of(settings)
    texts, judged_by = write_texts(files, given.windows, given.length, given.threads)
    tasks: dict[str, Path] = {}
    if plan.asked and plan.compared:
        add_task_samples(settings, print)
        tasks = task_copies(settings)
    ground = Ground(files.model.absolute(), files.calibration, texts, tasks, given.threads)
    chosen = [SETTINGS[title] for title in plan.settings]
    contenders = {each.title: own_contender(each.title, each.parameters) for each in chosen if not each.is_peer}
    releases = [own_release()]
    if theirs := [each.title for each in chosen if each.is_peer]:
        peer, more = peer_or_nothing(given.length)
        contenders |= dict.fromkeys(theirs, peer) if peer else {}
        releases += more
    if any(SETTINGS[title].sequences(given.samples)[1] for title in given.settings):
        _, seconds = SelfText(ground.model, given.length).written(given.threads)
        releases.append(
            f"The model wrote {SELF_WINDOWS} × {given.length} tokens of its own text once for all cells, in "
            f"{seconds:.0f} s; no cell's seconds include this time"
        )
    return (
        ground,
        contenders,
        [
            f"{describe_machine()}; {given.threads} thread(s).",
            *(f"{release}." for release in releases),
            f"{files.model.name} is calibrated on {plan.samples} × {given.length} tokens of {files.calibration.stem}, "
            "which the seed chooses.",
            judged_by,
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
