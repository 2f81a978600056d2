"""Faults by the hundred: `python -m bench.chaos --seed 1 --faults 100 [--seconds 600]`, or `--seeds 1-10 --faults 100`,
which goes on where it was ended, unless sources have changed since. The last line is `faults N, violations M`.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.chaos.running import Result, run, sources
from bench.chaos.schedule import SHARES
from bench.page import table
from core.jobs.states import STAGES

RESULTS = Path(__file__).parents[2] / ".cache" / "bench" / "chaos"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=_span, metavar="FIRST-LAST", help="several, but for those that were tried")
    parser.add_argument("--faults", type=int, default=100, help="of each seed")
    parser.add_argument("--seconds", type=float, help="no fault begins later")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where runs have theirs")
    asked = parser.parse_args(arguments)
    results = []
    for seed in asked.seeds or [asked.seed]:
        file = RESULTS / f"{seed}.json"
        found = _recalled(file, asked.faults) if asked.seeds else None
        if found is None:
            found = _run(seed, asked.faults, asked.seconds, asked.folder)
            found.write(file)
        else:
            _say(f"seed {seed}: has been tried, {file}")
        results.append(found)
    for result in results:
        for violation in result.violations:
            _say(f"\nseed {result.seed}: {violation}")
    _say("\n" + figures(results))
    violations = sum(len(result.violations) for result in results)
    _say(f"\nfaults {sum(len(result.faults) for result in results)}, violations {violations}")
    return int(violations > 0)


def figures(results: Sequence[Result]) -> str:
    """How often each kind came and each stage was hit, and the longest recovery."""
    done = [each for result in results for each in result.faults]
    kinds = [
        (
            kind,
            str(sum(each.kind == kind for each in done)),
            _longest([each.recovery_seconds for each in done if each.kind == kind]),
        )
        for kind in SHARES
    ]
    stages = [(stage, str(sum(each.stage == stage for each in done))) for stage in STAGES]
    return f"{table(('fault', 'count', 'longest recovery, s'), kinds)}\n\n{table(('stage hit', 'count'), stages)}"


def _longest(recoveries: Sequence[float | None]) -> str:
    waited = [seconds for seconds in recoveries if seconds is not None]
    return f"{max(waited):.1f}" if waited else "-"


def _recalled(file: Path, faults: int) -> Result | None:
    """Return what was found with these sources."""
    if not file.exists():
        return None
    found = Result.read(file)
    return found if (found.asked, found.sources) == (faults, sources()) else None


def _run(seed: int, faults: int, seconds: float | None, root: Path) -> Result:
    """Keep the folder, with every log, where something was wrong; the fleet's sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-", dir=root))
    _say(f"seed {seed}: {faults} faults in {folder}")
    result = run(seed, faults, seconds, folder, _say)
    if result.violations:
        _say(f"seed {seed}: {len(result.violations)} violations; logs and journal are in {folder}")
    else:
        shutil.rmtree(folder)
    return result


def _span(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
