"""The structured bench: `python -m bench.structured [--write PAGE] [--data FILE]`.

Cells are kept by what they depend on, so that the command goes on where it was ended; Ctrl-C shows what there is. What
the page has from other machines and earlier versions stays until the cell is measured anew; the page says whose it is.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import CellFailed, Runner
from bench.claims.sources import LanguageFiles, MissingData
from bench.contest import Ground
from bench.judging_texts import positive, task_copies, write_texts
from bench.machine import threads_available
from bench.measurements import write
from bench.page import show
from bench.structured.plan import FLAP, FRONTIER, ROWS, TARGETS, Plan
from bench.structured.report import measured, page
from bench.structured.results import KEPT, read_results, write_results
from bench.structured.running import Bench
from bench.windows import SelfText
from core.settings import Settings
from worker.samples.zero_shot import add_task_samples

SECTION = "bench-structured"
PARTS = ("prune", "latency", "tasks")
SETTING = ("windows", "distil_steps", "tasks")
"""Options that every figure of the page has at their defaults."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables; 1 where a cell is not there."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.write or given.data) and (other := _not_of_the_page(parser, given)):
        parser.error(f"the page's figures are taken with the defaults of {', '.join(other)}: leave them out to write")
    runner = Runner.of(given)
    compared = [row.title for row in ROWS.values() if row.has_seeds and not row.distils and not row.slow]
    plan = Plan(
        rows=given.rows,
        targets=given.targets,
        seeds=given.seeds,
        distil_steps=given.distil_steps,
        task_limit=given.tasks,
        task_rows=[row for row in given.rows if row in (given.task_rows or compared)],
        task_targets=given.task_targets,
    )
    try:
        ground, facts = _prepare(given, plan)
    except (MissingData, CellFailed) as error:
        print(error, file=sys.stderr)
        return 1
    bench = Bench(plan, ground, runner)
    bench.measure(given.parts)
    command = f"python -m bench.structured {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    results = bench.results.over(read_results())
    show(page(bench, results, [*facts, f"Written by `{command}`."]), SECTION, given.write)
    if given.write:
        write_results(results)
    if given.data:
        write(given.data, measured(results, ground, plan.distil_steps))
    return int(not bench.is_complete())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.structured", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="ROW", default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="tables (default all)")
    parser.add_argument(
        "--seeds", type=positive, default=3, help=f"draws of calibration, for {FRONTIER} and {FLAP} (default 3)"
    )
    parser.add_argument(
        "--windows",
        type=positive,
        default=16,
        help="windows of 512 tokens of each text that is judged by (default 16)",
    )
    parser.add_argument(
        "--parts",
        nargs="*",
        choices=PARTS,
        default=["prune", "latency"],
        help="what is run: prune and judge; time shapes, best with nothing else on the machine; ask the tasks "
        "(default prune latency); none shows what there is",
    )
    parser.add_argument("--distil-steps", type=positive, default=240, help="of 512 tokens (default 240)")
    parser.add_argument(
        "--tasks", type=int, default=300, help="questions of each zero-shot task; 0: none (default 300)"
    )
    parser.add_argument("--task-rows", nargs="+", choices=ROWS, metavar="ROW", help="default: the quick ones of both")
    parser.add_argument("--task-targets", nargs="+", choices=TARGETS, default=["20", "30"], help="default 20 30")
    parser.add_argument("--threads", type=positive, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help=f"replace the page's section, and {KEPT.name}, too")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="replace a file of measurements by those of the page's rows too"
    )
    return parser


def _not_of_the_page(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[str]:
    """Return the options that are not at their defaults, of those that change what a row's figures say."""
    return [f"--{name.replace('_', '-')}" for name in SETTING if getattr(given, name) != parser.get_default(name)]


def _prepare(given: argparse.Namespace, plan: Plan) -> tuple[Ground, list[str]]:
    """Everything the cells read, and what the page says of that; raises MissingData, CellFailed."""
    settings = Settings()
    files = LanguageFiles.of(settings)
    texts, judged_by = write_texts(files, given.windows, 512, given.threads)
    tasks: dict[str, Path] = {}
    if plan.task_limit:
        if "tasks" in given.parts:
            add_task_samples(settings, print)
        tasks = task_copies(settings)
    model = files.model.absolute()
    writes = any(ROWS[row].method == FRONTIER for row in plan.rows)
    own_text = SelfText(model, 512).written(given.threads)[0] if writes else None
    ground = Ground(model, files.calibration.absolute(), texts, tasks, given.threads, own_text)
    return ground, [judged_by]


if __name__ == "__main__":
    sys.exit(main())
