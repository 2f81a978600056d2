"""The vocabulary's bench: `SECATEUR_HOME=.cache/samples python -m bench.vocabulary [--write docs/vocabulary-bench.md]`.

Cells are kept by what they depend on, so that the command goes on where it was ended; Ctrl-C shows what there is.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import CACHE, Runner
from bench.judging_texts import positive
from bench.machine import threads_available
from bench.service import HANDBOOK, add_texts, sample_service
from bench.vocabulary.plan import CASES, cases
from bench.vocabulary.running import Bench
from core.engine.architectures.describe import describe_folder
from worker.samples.language import EVALUATION, MODEL


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    runner = Runner.of(given)
    with sample_service() as service:
        add_texts(service.home)
        description = describe_folder(service.settings.models_root / MODEL)
        blocks = description.prunable_parameters / description.parameters
        bench = Bench(service, runner, given.threads)
        for case in cases(blocks, given.samples, given.length, given.windows):
            if case.name in given.cases:
                bench.measure(case)
        texts = (service.settings.datasets_root / f"{EVALUATION}.jsonl", CACHE / f"{HANDBOOK}.jsonl")
        logits = {text.stem: found for text in texts if (found := bench.logits(text))}
    print(bench.found, logits)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.vocabulary", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", choices=CASES, metavar="CASE", default=list(CASES), help="jobs to run")
    parser.add_argument("--samples", type=positive, default=128, help="calibration sequences (default 128)")
    parser.add_argument("--length", type=positive, default=512, help="tokens of a sequence (default 512)")
    parser.add_argument("--windows", type=positive, default=16, help="sequences of each text judged by (default 16)")
    parser.add_argument("--threads", type=positive, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--recall", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
