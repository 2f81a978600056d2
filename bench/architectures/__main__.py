"""The matrix of architectures: `python -m bench.architectures [--write PAGE] [--data FILE]`.

Outcomes are kept by what they follow from, so that the command goes on where it was ended.
"""

import argparse
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import transformers

from bench.architectures.outcomes import CAPABILITIES, TypeOutcomes
from bench.architectures.report import page, write_known_types
from bench.architectures.running import complete, recalled
from bench.architectures.tiny_configs import TYPES
from bench.cells import own_release
from bench.machine import describe_machine
from bench.page import write_section

SECTION = "bench-architectures"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try what is missing; 1 where a result is wrong."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    try:
        for outcomes in complete(given.types):
            print(_line(outcomes), flush=True)
    except KeyboardInterrupt:
        print("ended early: the page shows what there is, the rest is run the next time", file=sys.stderr)
    found = recalled(given.types)
    command = f"python -m bench.architectures {shlex.join(sys.argv[1:] if arguments is None else arguments)}".strip()
    text = page(found, given.types, f"{describe_machine()}; {own_release()}. `{command}`")
    print(f"\n{text}", flush=True)
    if given.write:
        write_section(given.write, SECTION, text)
    if given.data:
        write_known_types(given.data, found)
    return int(any(cell.status == "wrong" for each in found.values() for cell in each.cells.values()))


def _line(outcomes: TypeOutcomes) -> str:
    cells = []
    for capability in CAPABILITIES:
        cell = outcomes.cells[capability]
        why = "" if cell.status == "yes" else f" {cell.status} ({cell.stage}: {cell.reason[:160]})"
        cells.append(f"{capability}{why}")
    if outcomes.cells["opens"].status != "yes":
        cells = cells[:1]
    return f"{outcomes.model_type} [{outcomes.seconds:.0f} s]: {'; '.join(cells)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.architectures", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("types", nargs="*", default=list(TYPES), help="model types (default all)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    parser.add_argument("--data", type=Path, metavar="FILE", help="write what is known of each type to a file too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
