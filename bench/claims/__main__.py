"""Try every claim: `python -m bench.claims [--only NAME …] [--write docs/claims.md]`.

It goes on where it was ended; Ctrl-C writes the page with what there is. As many cells run at a time as there are
processor cores, those that measure time alone and last.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cells import Cell, Runner, cell_key, engine_program, recalled, run
from bench.claims.claim import CLAIMS, Claim, Run
from bench.claims.report import write_page
from bench.machine import describe_machine, threads_available
from bench.sources import MissingData, fashion_mnist_files, fetch_language_files, judge_folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.claims", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[each.name for each in CLAIMS], help="these claims"
    )
    parser.add_argument("--write", metavar="PAGE", default="docs/claims.md")
    options = parser.parse_args(arguments)
    chosen = [each for each in CLAIMS if not options.only or each.name in options.only]
    possible, runner = chosen, Runner.of(options)
    if any("language" in each.reads for each in chosen):
        fetch_language_files(print)
    for read, look in (("fashion-mnist", fashion_mnist_files), ("judge", judge_folder)):
        if any(read in each.reads for each in chosen):
            try:
                look()
            except MissingData as missing:
                print(missing, file=sys.stderr)
                possible = [each for each in possible if read not in each.reads]
    found: dict[tuple[str, int], dict[str, Any]] = recalled(cells_of(CLAIMS))
    for is_alone, at_once in ((False, threads_available()), (True, 1)):
        some = [claim for claim in possible if claim.is_alone is is_alone]
        found |= runner.figures(cells_of(some), _brief, at_once=at_once)
    runs = {name: Run.of(figures) for name, figures in found.items()}
    write_page(Path(options.write), CLAIMS, runs, "make claims")
    return int(any(name not in found for name in cells_of(chosen)))


def cells_of(claims: Sequence[Claim]) -> dict[tuple[str, int], Cell]:
    """Return the cells of claims, by name and seed."""
    return {(claim.name, seed): _cell(claim, seed) for claim in claims for seed in claim.seeds}


def _cell(claim: Claim, seed: int) -> Cell:
    """Return the cell of a seed; it changes with the engine and with what measures, not with questions and plots.

    One that measures time has every thread, the others one each.
    """
    spec = {
        "claim": claim.name,
        "seed": seed,
        "threads": threads_available() if claim.is_alone else 1,
        "setting": dict(claim.setting),
    }
    here = Path(__file__).parent
    sources = [here / f"{name}.py" for name in ("data", "networks", "classical", "language")]
    program = engine_program("bench.claims.record:measure", sources)
    key = cell_key(program, spec, describe_machine())
    return Cell(f"{claim.name}, seed {seed}", key, lambda: run(program, spec, key).result)


def _brief(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures["facts"].items()) or "done"


if __name__ == "__main__":
    sys.exit(main())
