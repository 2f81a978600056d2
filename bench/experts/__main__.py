"""The experts' bench: `python -m bench.experts [--write PAGE]`.

Cells are kept by what they depend on, so that the command goes on where it was ended; Ctrl-C shows what there is.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.cells import CACHE, CellFailed
from bench.claims.sources import LanguageFiles, MissingData, fetch_language_files
from bench.experts.plan import ROWS, Plan
from bench.experts.report import page
from bench.experts.running import Bench, Sizes
from bench.experts.upcycle import Recipe
from bench.experts.upcycle_cell import LAYOUTS
from bench.handbook import write_handbook
from bench.judging_texts import positive
from bench.page import write_section
from core.settings import Settings

SECTION = "bench-experts"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(given.threads)
    files = LanguageFiles.of(Settings())
    handbook = (CACHE / "handbook.jsonl").absolute()
    plan = Plan(given.rows, given.seeds, given.weight_seeds)
    bench = Bench(plan, Sizes(), Recipe(), files, [files.calibration.absolute(), handbook], given.threads)
    try:
        if not all(path.exists() for path in (files.model, files.calibration, files.evaluation)):
            fetch_language_files(print)
        write_handbook(handbook)
        bench.make()
        bench.recall()
        if not given.recall:
            bench.complete()
    except (MissingData, CellFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ended early: the tables show what there is, the rest is run the next time", file=sys.stderr)
    if len(bench.before) < len(LAYOUTS):  # there is no mixture yet
        return 1
    text = page(bench)
    print(f"\n{text}", flush=True)
    if given.write:
        write_section(given.write, SECTION, text)
    return int(any(cell not in bench.found for cell in plan.cells()))


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
