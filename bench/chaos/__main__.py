"""Faults by the hundred: `python -m bench.chaos --seed 1 --faults 100 [--seconds 600]`, or `--seeds 1-10 --faults 100`,
which goes on where it was ended, unless sources have changed since. The last line is `faults N, violations M`. Runs of
some `--kinds`, or with `--pooler`, are not kept.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.cells import CACHE
from bench.chaos.faults import SCHEDULED
from bench.chaos.report import report, write
from bench.chaos.running import Result, run, sources

FOLDER = CACHE / "chaos"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=_span, metavar="FIRST-LAST", help="several, but for those that were tried")
    parser.add_argument("--faults", type=int, default=100, help="of each seed")
    parser.add_argument("--kinds", type=_kinds, default=list(SCHEDULED), metavar="KIND,…", help="these alone")
    parser.add_argument("--pooler", action="store_true", help="workers and dispatchers go through PgBouncer")
    parser.add_argument("--seconds", type=float, help="no fault begins later")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where runs have theirs")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the figures into its section")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended early"))  # so that disks are unmounted
    results = []
    is_kept = asked.kinds == list(SCHEDULED) and not asked.pooler
    for seed in asked.seeds or [asked.seed]:
        file = FOLDER / f"{seed}.json"
        recalled = _recalled(file, asked.faults) if asked.seeds and is_kept else None
        result = recalled or _run(seed, asked)
        if recalled is None and is_kept:
            result.write(file)
        elif recalled is not None:
            _say(f"seed {seed}: has been tried, {file}")
        results.append(result)
    for result in results:
        for violation in result.violations:
            _say(f"\nseed {result.seed}: {violation}")
    found = [asdict(result) for result in results]
    _say(f"\n{report(found)}")
    if asked.write is not None:
        write(asked.write, found)
    violations = sum(len(result.violations) for result in results)
    _say(f"\nfaults {sum(len(result.faults) for result in results)}, violations {violations}")
    return int(violations > 0)


def _recalled(file: Path, faults: int) -> Result | None:
    """Return what was found with these sources."""
    if not file.exists():
        return None
    found = Result.read(file)
    return found if (found.asked, found.sources) == (faults, sources()) else None


def _run(seed: int, asked: argparse.Namespace) -> Result:
    """Keep the folder, with every log, where something was wrong; the fleet's sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-", dir=asked.folder))
    _say(f"seed {seed}: {asked.faults} faults in {folder}")
    result = run(seed, asked.faults, asked.seconds, folder, _say, kinds=asked.kinds, is_pooled=asked.pooler)
    if result.violations:
        _say(f"seed {seed}: {len(result.violations)} violations; logs and journal are in {folder}")
    else:
        shutil.rmtree(folder)
    return result


def _span(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _kinds(text: str) -> list[str]:
    """Return the kinds of a list; raises ValueError for one that is none."""
    chosen = text.split(",")
    if unknown := set(chosen) - set(SCHEDULED):
        raise ValueError(unknown)
    return chosen


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
