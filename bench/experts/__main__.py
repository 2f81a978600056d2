"""The experts' bench: `python -m bench.experts [--write PAGE]`.

Cells are kept by what they depend on, so that the command goes on where it was ended; Ctrl-C shows what there is.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import CACHE, Runner
from bench.claims.sources import LanguageFiles, MissingData, fetch_language_files
from bench.experts.plan import LAYOUTS, ROWS, Plan, Recipe
from bench.experts.report import page
from bench.experts.running import Bench, Sizes
from bench.handbook import write_handbook
from bench.judging_texts import positive
from bench.page import show
from core.settings import Settings

SECTION = "bench-experts"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    runner = Runner.of(given)
    files = LanguageFiles.of(Settings())
    handbook = (CACHE / "handbook.jsonl").absolute()
    plan = Plan(given.rows, given.seeds, given.weight_seeds)
    bench = Bench(plan, Sizes(), Recipe(), files, [files.calibration.absolute(), handbook], given.threads)
    try:
        if not all(path.exists() for path in (files.model, files.calibration, files.evaluation)):
            fetch_language_files(print)
        write_handbook(handbook)
    except MissingData as error:
        print(error, file=sys.stderr)
        return 1
    bench.measure(runner)
    if len(bench.before) < len(LAYOUTS):  # there is no mixture yet
        return 1
    show(page(bench), SECTION, given.write)
    return int(any(pruning not in bench.found for pruning in plan.prunings()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.experts", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="ROW", default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--seeds", type=positive, default=3, help="draws of calibration for experts (default 3)")
    parser.add_argument("--weight-seeds", type=positive, default=1, help="the same for weights (default 1)")
    parser.add_argument("--threads", type=positive, default=1, help="threads (default 1)")
    parser.add_argument("--recall", action="store_true", help="show what there is, and prune nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
