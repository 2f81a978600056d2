"""Faults by the hundred: `python -m bench.chaos --seeds 1-10`. The last line is `faults N, violations M`."""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.chaos.faults import KINDS
from bench.chaos.running import Result, run
from bench.page import table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--seeds", default="1", metavar="FIRST-LAST")
    parser.add_argument("--faults", type=int, default=100, help="of each seed")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help="these alone")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended early"))  # so that disks are unmounted
    first, _, last = asked.seeds.partition("-")
    results = [_run(seed, asked.faults, asked.kinds) for seed in range(int(first), int(last or first) + 1)]
    recoveries: dict[str, list[float]] = {}
    for result in results:
        for fault, seconds in zip(result.faults, result.recoveries, strict=True):
            recoveries.setdefault(fault.kind, []).append(seconds)
    rows = [[kind, str(len(times)), f"{max(times):.1f}"] for kind, times in sorted(recoveries.items())]
    violations = sum(len(result.violations) for result in results)
    print(f"\n{table(['fault', 'count', 'longest recovery, s'], rows, text_columns=1)}")
    print(f"\nfaults {sum(map(len, recoveries.values()))}, violations {violations}")
    return int(violations > 0)


def _run(seed: int, faults: int, kinds: Sequence[str]) -> Result:
    """Keep the folder, with every log, where something was wrong; the fleet's sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    print(f"seed {seed}: {faults} faults in {folder}", flush=True)
    result = run(seed, faults, folder, kinds)
    for violation in result.violations:
        print(f"seed {seed}: {violation}", flush=True)
    if result.violations:
        print(f"seed {seed}: logs and journal are in {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return result


if __name__ == "__main__":
    sys.exit(main())
