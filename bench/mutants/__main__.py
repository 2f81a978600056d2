"""Try mutants: `python -m bench.mutants [NAME …]`. Those written by hand, or a `--sample` of cosmic-ray's own.

A NAME may hold wildcards, such as `lease-*`. What was found before, with the same change, file and tests, is not run
again. The exit status is 1 where fewer are killed than must be, and 2 where a mutant does not fit the tree or its tests
cannot be run.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from bench.cells import Runner
from bench.mutants.mutant import ROOT, NotApplicable, read_mutants, sampled_mutants
from bench.mutants.running import BaselineFailed, report, sources, try_mutants

LEAST_KILLED, LEAST_OF_A_SAMPLE = 0.95, 0.6
"""Least shares of killed mutants. Some of a sample change nothing that a test can see, such as `is` instead of `==`."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutants; all where none is given")
    parser.add_argument("--sample", type=int, metavar="N", help="N of cosmic-ray's own")
    parser.add_argument("--seed", type=int, default=0, help="draws the sample")
    parser.add_argument("--tests", nargs="+", metavar="TEST", help="run these in place of a mutant's own")
    parser.add_argument("--list", action="store_true", help="print the mutants and run none")
    parser.add_argument(
        "--at-once", type=int, default=2, metavar="N", help="mutants at a time, 2 unless said otherwise"
    )
    parser.add_argument("--again", dest="fresh", action="store_true", help="run again what was found before")
    options = parser.parse_args(arguments)
    if options.sample:
        mutants, least = sampled_mutants(options.sample, options.seed), LEAST_OF_A_SAMPLE
    else:
        mutants, least = read_mutants(), LEAST_KILLED
    if options.names:
        mutants = [each for each in mutants if any(fnmatchcase(each.name, name) for name in options.names)]
    if not mutants:
        parser.error(f"no mutant is named {', '.join(options.names)}")
    if options.list:
        print(*(each.name for each in mutants), sep="\n")
        return 0
    runner, count = Runner.of(options), len(mutants)
    try:
        if options.tests:
            mutants = [replace(each, tests=tuple(options.tests)) for each in mutants]
        results = try_mutants(mutants, ROOT, sources(ROOT), runner, at_once=options.at_once)
    except (BaselineFailed, NotApplicable) as error:
        print(error)
        return 2
    return report(results, count, least)


if __name__ == "__main__":
    sys.exit(main())
