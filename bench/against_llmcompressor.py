"""Secateur against llm-compressor on one model and the same tokens: time, memory, perplexity.

    python -m bench.against_llmcompressor [--fresh] [--write docs/benchmarks.md]

A cell that was measured before on this machine, with this code and these releases, is not measured again, so that a
run that was interrupted goes on where it was.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cells import CellFailed, Runner, engine_program, own_release, run
from bench.contest import (
    MIB,
    PEER,
    Figures,
    Ground,
    Job,
    brief,
    contest_cell,
    dense_cell,
    own_contender,
    peer_contender,
)
from bench.machine import describe_machine, products, threads_available
from bench.page import show, table
from bench.windows import Windows
from core.settings import get_settings
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

METHODS = ("magnitude", "wanda", "sparsegpt")
PATTERNS = ("unstructured", "4:8", "2:4")
OURS = "Secateur"
OURS_FLOAT32 = "Secateur, float32 forward"
TEXT = "evaluation"
"""The one text that models are judged by."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables; 1 where a run failed."""
    settings = get_settings()
    parser = argparse.ArgumentParser(prog="python -m bench.against_llmcompressor", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=settings.models_root / MODEL, help="folder of safetensors")
    for use, name in (("calibration", CALIBRATION), ("evaluation", EVALUATION)):
        parser.add_argument(f"--{use}", type=Path, default=settings.datasets_root / f"{name}.jsonl", help="text file")
    parser.add_argument("--samples", type=int, default=32, help="windows of each use (default 32)")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window (default 512)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--peer-batch", type=int, help=f"sequences of {PEER}'s batches (default: 4096 tokens)")
    parser.add_argument("--threads", type=int, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before, newest peer")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    runner = Runner.of(given)
    try:
        text = _contest(given, runner)
    except CellFailed as error:
        print(error, file=sys.stderr)
        return 1
    show(text, "against_llmcompressor", given.write)
    return int(bool(runner.failures) or not runner.runs)


def _contest(given: argparse.Namespace, runner: Runner) -> str:
    """Return the section of the page, once all is measured; raises CellFailed where the dense model is not judged."""
    _fetch_samples([given.model, given.calibration, given.evaluation])
    peer, release = peer_contender(given.length, batch=given.peer_batch, upgrade=given.fresh)
    print(f"{describe_machine()}; {release}", flush=True)
    rates = run(engine_program("bench.machine_cell:measure"), {"threads": given.threads}, "machine").result
    model = given.model.absolute()
    windows = {
        use: Windows(model, getattr(given, use), use, given.samples, given.length)
        for use in ("calibration", "evaluation")
    }
    ground = Ground(model, given.calibration, {TEXT: windows["evaluation"].written(given.threads)}, {}, given.threads)
    cells = {}
    for job in [Job(method, pattern) for method in given.methods for pattern in PATTERNS]:
        contenders = [own_contender(OURS, {}), own_contender(OURS_FLOAT32, {"forward_dtype": "float32"}), peer]
        if job.method == "magnitude" or job.pattern != "unstructured":
            del contenders[1]
        for each in contenders:
            title = f"{job.title}, {each.title}"
            cells[job, each.title] = contest_cell(title, each, job, ground, windows["calibration"])
    dense = runner.figures({None: dense_cell(ground)}).get(None)
    if dense is None:
        raise CellFailed("the dense model was not judged")
    found = {name: Figures.of(figures) for name, figures in runner.figures(cells, brief).items()}
    tokens = given.samples * given.length
    described = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
    facts = [
        f"- {describe_machine()}; matrix products: {described}.",
        *(f"- {each}." for each in (own_release(), release)),
        f"- {ground.description.parameters:,} parameters, {ground.description.dtype}; {tokens:,} calibration tokens; "
        f"dense perplexity {dense['perplexity'][TEXT]:.2f}.",
    ]
    if measured := sorted(figures.measured for figures in found.values() if figures):
        facts.append(f"- Measured from {measured[0]} to {measured[-1]}.")
    header = ["job", "with", "whole s", "cpu s", "pruning s", "floor s", "peak MiB", "sparsity", "perplexity"]
    rows = [_row(job, title, figures, ground, tokens, rates) for (job, title), figures in found.items()]
    ratios = [
        _ratio(job, title, figures, found.get((job, PEER)))
        for (job, title), figures in found.items()
        if title != PEER and figures
    ]
    return "\n\n".join(
        [
            "\n".join(facts),
            table(header, rows),
            f"As a share of {PEER}'s:",
            table(["job", "with", "whole time", "cpu time", "pruning time", "peak memory", "perplexity"], ratios),
        ]
    )


def _row(
    job: Job, title: str, figures: Figures | None, ground: Ground, tokens: int, rates: Mapping[str, float]
) -> list[str]:
    if figures is None:
        return [job.title, title, "not offered", *[""] * 6]
    needed = products(ground.description, job.method, tokens)
    return [
        job.title,
        title,
        f"{figures.seconds:.1f}",
        f"{figures.processor_seconds:.1f}",
        f"{figures.prune_seconds:.1f}",
        f"{needed.seconds(rates, figures.forward_dtype):.1f}" if needed else "0",
        f"{figures.peak_bytes / MIB:,.0f}",
        f"{figures.sparsity:.4f}",
        f"{figures.perplexity[TEXT]:,.2f}",
    ]


def _ratio(job: Job, title: str, mine: Figures, other: Figures | None) -> list[str]:
    if other is None:
        return [job.title, title, *["–"] * 5]
    pairs = [
        (mine.seconds, other.seconds),
        (mine.processor_seconds, other.processor_seconds),
        (mine.prune_seconds, other.prune_seconds),
        (mine.peak_bytes, other.peak_bytes),
        (mine.perplexity[TEXT], other.perplexity[TEXT]),
    ]
    return [job.title, title, *(f"{one / two:.2f}" for one, two in pairs)]


def _fetch_samples(needed: list[Path]) -> None:
    """`secateur samples`, where what it brings is needed and not there; raises CellFailed where a path is missing."""
    home = get_settings().home
    if any(not path.exists() and path.is_relative_to(home) for path in needed):
        subprocess.run([Path(sys.executable).with_name("secateur"), "samples"], check=True)
    for path in needed:
        if not path.exists():
            raise CellFailed(f"there is no {path}")


if __name__ == "__main__":
    sys.exit(main())
