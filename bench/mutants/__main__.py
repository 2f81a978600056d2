"""Try every mutant: `python -m bench.mutants [NAME …] [--at-once 2] [--again]`.

A NAME may hold wildcards, such as `lease-*`. What was found before, with the same change, file and tests, is not run
again. The exit status is 1 under 95 % killed, and 2 where a mutant does not fit the tree or its tests cannot be run.
"""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bench.mutants.mutant import NotApplicable, read_mutants
from bench.mutants.running import BaselineFailed, Result, recalled, sources, try_mutants

ROOT = Path(__file__).parents[2]
LEAST_KILLED = 0.95


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutants; all where none is given")
    parser.add_argument(
        "--at-once", type=int, default=2, metavar="N", help="mutants at a time, 2 unless said otherwise"
    )
    parser.add_argument("--again", action="store_true", help="run again what was found before")
    options = parser.parse_args(arguments)
    mutants = read_mutants()
    if options.names:
        mutants = [each for each in mutants if any(fnmatchcase(each.name, name) for name in options.names)]
    if not mutants:
        parser.error(f"no mutant is named {', '.join(options.names)}")
    before = [] if options.again else [each for each in (recalled(mutant, ROOT) for mutant in mutants) if each]
    known = {each.mutant.name for each in before}
    results = list(before)
    try:
        left = [each for each in mutants if each.name not in known]
        if left:
            for result in try_mutants(left, ROOT, sources(ROOT), at_once=options.at_once, say=_say):
                _say(f"{result.state:8}  {result.mutant.name}  {result.seconds:.0f} s")
                results.append(result)
    except BaselineFailed as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say(f"ended early: {len(results)} of {len(mutants)} are known, the rest is run the next time")
        return 2
    return report(results)


def report(results: Sequence[Result]) -> int:
    """Print the score and what survived; return the exit status."""
    killed = sum(each.state == "killed" for each in results)
    for state in ("survived", "error"):
        for each in results:
            if each.state == state:
                _say(f"{state}: {each.mutant.name} ({each.mutant.file}): {each.detail}")
    share = killed / len(results)
    _say(f"{killed} of {len(results)} killed, {100 * share:.1f} %; at least {100 * LEAST_KILLED:g} % must be")
    if any(each.state == "error" for each in results):
        return 2
    return int(share < LEAST_KILLED)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotApplicable as error:
        sys.exit(f"{error}")
