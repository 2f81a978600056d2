"""The vocabulary's bench: `SECATEUR_HOME=.cache/samples python -m bench.vocabulary [--write docs/vocabulary-bench.md]`.

Cells are kept by what they depend on, so that the command goes on where it was ended; Ctrl-C shows what there is.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import Runner, own_release
from bench.claims.sources import MissingData
from bench.judging_texts import positive
from bench.machine import describe_machine, threads_available
from bench.measurements import merge
from bench.page import show
from bench.service import add_texts, sample_service
from bench.vocabulary.plan import CASES, TAUGHT, cases
from bench.vocabulary.report import page
from bench.vocabulary.running import Bench, family_cells, measured
from core.engine.architectures.describe import describe_folder
from worker.samples.language import EVALUATION, MODEL

SECTION = "bench-vocabulary"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    runner = Runner.of(given)
    with sample_service() as service:
        try:
            add_texts(service.home)
        except MissingData as error:
            print(error, file=sys.stderr)
            return 1
        text = service.settings.datasets_root / f"{EVALUATION}.jsonl"
        model = service.settings.models_root / MODEL
        cells = family_cells(text.absolute(), [model.absolute(), *given.tokenizers], given.threads)
        families = runner.figures(cells, lambda told: f"{told['alike']} of {told['kept']} kept texts alike")
        description = describe_folder(model)
        blocks = description.prunable_parameters / description.parameters
        bench = Bench(service, runner, given.threads, description.family, given.at_once)
        bench.reduce()
        bench.judge(given.windows, given.length)
        bench.compare_logits()
        for case in cases(blocks, given.samples, given.length, given.windows):
            bench.measure(case, runs=case.name in given.cases)
    command = f"python -m bench.vocabulary {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    taught = f"{TAUGHT['steps']} steps of {TAUGHT['batch_size']} × {TAUGHT['sequence_length']} tokens"
    facts = (
        f"Written by `{command}`, on {describe_machine()}; {own_release()}.\n\n{MODEL} is calibrated on "
        f"{given.samples} × {given.length} tokens, and measured on {given.windows} × {given.length} tokens of each "
        "text. Tokens are counted on the whole calibration text. `frontier` removes a fifth of the blocks' parameters, "
        f"without trials that remove complete layers. *Distilled* means {taught} of the calibration text. Timings "
        "depend on other work of the machine, so the table also has its load, in waiting processes."
    )
    show("\n\n".join([facts, page(bench, families)]), SECTION, given.write)
    if given.data:
        merge(given.data, measured(bench, describe_machine(), own_release()))
    return int(len(bench.found) < len(CASES) or len(families) < len(cells) or not bench.logits)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.vocabulary", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", choices=CASES, metavar="CASE", default=list(CASES), help="jobs to run")
    parser.add_argument("--samples", type=positive, default=128, help="calibration sequences (default 128)")
    parser.add_argument("--length", type=positive, default=512, help="tokens of a sequence (default 512)")
    parser.add_argument("--windows", type=positive, default=16, help="sequences of each text judged by (default 16)")
    parser.add_argument(
        "--tokenizers", nargs="*", type=Path, default=[], metavar="FOLDER", help="more folders with a tokenizer.json"
    )
    parser.add_argument("--threads", type=positive, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--at-once", type=positive, default=2, help="comparisons that run at a time (default 2)")
    parser.add_argument("--recall", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    parser.add_argument("--data", type=Path, metavar="FILE", help="put the figures among the measurements of a file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
