"""The bench of answers: `SECATEUR_HOME=.cache/samples python -m bench.answers [--write docs/answers-bench.md]`.

Cells are kept by what they depend on, so that the command goes on where it was ended; Ctrl-C shows what there is.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.answers.plan import MIXTURES, REMOVALS, cases
from bench.answers.report import page
from bench.answers.running import Bench, Size
from bench.cells import Runner, own_release
from bench.judging_texts import positive
from bench.machine import describe_machine, threads_available
from bench.page import show
from bench.service import sample_service
from core.engine.architectures.describe import describe_folder
from worker.samples.language import MODEL

SECTION = "bench-answers"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    size = Size(given.samples, given.length, given.windows, given.prompts, given.tokens, given.steps)
    planned = list(cases(given.removals, given.mixtures, given.seeds))
    chosen = [case for case in planned if not given.only or any(each in case.title for each in given.only)]
    if given.list:
        print("\n".join(case.title for case in chosen))
        return 0
    with sample_service() as service:
        description = describe_folder(service.settings.models_root / MODEL)
        blocks = description.prunable_parameters / description.parameters
        bench = Bench(service, Runner.of(given), given.threads, size, blocks, planned, chosen)
        bench.prune()
        bench.judge()
    command = f"python -m bench.answers {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    facts = (
        f"Written by `{command}`, on {describe_machine()}; {own_release()}.\n\n{MODEL} is calibrated on {size.samples} "
        f"× {size.length} tokens. Bits per byte are measured on {size.windows} × {size.length} tokens of Wikipedia on "
        f"which no model was calibrated. Each model answers {size.prompts} requests greedily, in at most {size.tokens} "
        "tokens."
    )
    show("\n\n".join([facts, page(bench)]), SECTION, given.write)
    return int(bool(bench.missing))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.answers", description=__doc__.splitlines()[0])
    parser.add_argument("--removals", nargs="*", choices=REMOVALS, metavar="REMOVAL", default=list(REMOVALS))
    parser.add_argument("--mixtures", nargs="*", choices=MIXTURES, metavar="MIXTURE", default=list(MIXTURES))
    parser.add_argument("--seeds", type=positive, default=3, help="seeds of each job (default 3)")
    parser.add_argument(
        "--only", nargs="*", metavar="TEXT", help="run only cells whose title has one of these; show all that are there"
    )
    parser.add_argument("--list", action="store_true", help="print the titles of the cells, and run nothing")
    parser.add_argument("--samples", type=positive, default=128, help="calibration sequences (default 128)")
    parser.add_argument("--length", type=positive, default=512, help="tokens of a sequence (default 512)")
    parser.add_argument("--windows", type=positive, default=32, help="sequences for bits per byte (default 32)")
    parser.add_argument("--prompts", type=positive, default=100, help="requests, 150 at most (default 100)")
    parser.add_argument("--tokens", type=positive, default=128, help="tokens of an answer at most (default 128)")
    parser.add_argument("--steps", type=positive, default=120, help="steps of a distillation (default 120)")
    parser.add_argument("--threads", type=positive, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--recall", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
