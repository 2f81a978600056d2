"""Try every claim: `python -m bench.claims [--only NAME …] [--write docs/claims.md]`.

It goes on where it was ended; Ctrl-C writes the page with what there is.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import Runner
from bench.claims.report import write_page
from bench.claims.rules import CLAIMS
from bench.claims.running import cells_of, measure
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
    found = measure(possible, CLAIMS, runner)
    write_page(Path(options.write), CLAIMS, found, "make claims")
    return int(any(name not in found for name in cells_of(chosen)))


if __name__ == "__main__":
    sys.exit(main())
