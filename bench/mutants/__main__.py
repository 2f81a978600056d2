"""Try every mutant written by hand, or a sample of cosmic-ray's: `python -m bench.mutants [NAME …] [--sample N]`.

A NAME may hold wildcards, such as `lease-*`. What was found before, with the same change, file and tests, is not run
again. The exit status is 1 under 95 % killed, and 2 where a mutant does not fit the tree or its tests cannot be run.
"""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase

from bench.cells import Runner
from bench.mutants.mutant import ROOT, NotApplicable, read_mutants, sampled_mutants
from bench.mutants.running import BaselineFailed, report, sources, try_mutants

LEAST_KILLED, LEAST_OF_A_SAMPLE = 0.95, 0.6
"""Least shares of killed mutants. Some of a sample change nothing that a test can see, such as `is` instead of `==`."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutants; all where none is given")
    parser.add_argument("--sample", type=int, metavar="N", help="N of cosmic-ray's own instead, of the listed modules")
    parser.add_argument("--seed", type=int, default=0, help="draws the sample")
    parser.add_argument(
        "--at-once", type=int, default=2, metavar="N", help="mutants at a time, 2 unless said otherwise"
    )
    parser.add_argument("--again", dest="fresh", action="store_true", help="run again what was found before")
    options = parser.parse_args(arguments)
    mutants = sampled_mutants(options.sample, options.seed) if options.sample else read_mutants()
    if options.names:
        mutants = [each for each in mutants if any(fnmatchcase(each.name, name) for name in options.names)]
    if not mutants:
        parser.error(f"no mutant is named {', '.join(options.names)}")
    try:
        results = try_mutants(mutants, ROOT, sources(ROOT), Runner.of(options), at_once=options.at_once)
    except (BaselineFailed, NotApplicable) as error:
        print(error)
        return 2
    return report(results, len(mutants), LEAST_OF_A_SAMPLE if options.sample else LEAST_KILLED)


if __name__ == "__main__":
    sys.exit(main())
