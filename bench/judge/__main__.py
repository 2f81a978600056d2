"""Make the judge: `SECATEUR_HOME=.cache/samples python -m bench.judge [--write docs/judge.md]`.

The sample model is rotated, and registered in the home under the judge's name. What was made is kept.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.cells import CACHE, Cell, Figures, Runner, cell_key, engine_program, own_release, run
from bench.judge import JUDGE
from bench.judge.texts import CODE, add_texts
from bench.judging_texts import positive
from bench.machine import describe_machine, threads_available
from bench.page import show, table
from bench.service import DOCUMENTATION, Service, sample_service
from bench.windows import Windows, model_hash
from worker.embedded.register import add_model
from worker.samples.language import EVALUATION, MODEL

SECTION: Final = "bench-judge"
TEXTS: Final = (EVALUATION, CODE, DOCUMENTATION)
_WINDOWS, _LENGTH = 8, 256


def rotating(service: Service, threads: int) -> Cell:
    """Return the cell of the judge, whose folder is in `.cache/bench/judge` under its key."""
    program = engine_program("bench.judge.cell:work", sorted(Path(__file__).parent.glob("*.py")))
    model = (service.settings.models_root / MODEL).absolute()
    windows = {
        name: Windows(model, service.settings.datasets_root / f"{name}.jsonl", "evaluation", _WINDOWS, _LENGTH)
        for name in TEXTS
    }
    named = {name: each.file.parent.name for name, each in windows.items()}
    key = cell_key(program, {"threads": threads, "texts": named, "model": model_hash(model)}, "")

    def work() -> Figures:
        unfinished = folder_of(key).with_suffix(".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        texts = {name: str(each.written(threads)) for name, each in windows.items()}
        spec = {"model": str(model), "output": str(unfinished), "texts": texts, "threads": threads}
        measured = run(program, spec, key)
        shutil.rmtree(folder_of(key), ignore_errors=True)
        unfinished.rename(folder_of(key))
        return measured.result | {"seconds": measured.seconds}

    return Cell("the judge", key, work)


def folder_of(key: str) -> Path:
    """Return where the judge of a cell lies."""
    return (CACHE / "judge" / key).absolute()


def page(made: Figures) -> str:
    """Return the tables of the judge: how it compares with the sample."""
    models = ("sample", "rotated, float32", "judge")
    rows = [[name, *(f"{each:.3f}" for each in made["perplexity"][name])] for name in made["perplexity"]]
    facts = [
        ["parameters, sample and judge", " and ".join(f"{each:,}" for each in made["parameters"])],
        ["different values among 32 neighbours in a row, sample and judge",
         " and ".join(f"{each:.1f}" for each in made["levels"])],
        ["largest difference of a logit before rounding", f"{made['logit_difference']:.1e}"],
        ["seconds", f"{made['seconds']:.0f}"],
    ]  # fmt: skip
    compared = table(["perplexity", *models], rows, text_columns=1)
    return "\n\n".join([compared, table(["what", "figure"], facts, text_columns=1)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the judge where it is missing, and print what it is; 1 where it is not there."""
    given = _parser().parse_args(arguments)
    runner = Runner.of(given)
    with sample_service() as service:
        add_texts(service.home)
        cell = rotating(service, given.threads)
        making = runner if folder_of(cell.key).exists() else Runner(runner.runs, is_fresh=True)
        found = making.figures({None: cell}, lambda told: f"{told['perplexity']}")
        if not found:
            return 1
        if runner.runs:
            add_model(service.home, JUDGE, folder_of(cell.key), source=f"{MODEL}, python -m bench.judge", say=print)
    facts = f"Written by `python -m bench.judge`, on {describe_machine()}; {own_release()}."
    show("\n\n".join([facts, page(found[None])]), SECTION, given.write)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.judge", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=positive, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--recall", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
