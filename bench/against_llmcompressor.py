"""Secateur against llm-compressor on one model and the same tokens: time, memory, perplexity.

    python -m bench.against_llmcompressor [--fresh] [--write docs/benchmarks.md]

A cell that was measured before on this machine, with this code and these releases, is not measured again, so that a
run that was interrupted goes on where it was.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import CellFailed, own_program, own_release, run
from bench.contest import PEER, Contender, Figures, Job, Stage, contend, judge_dense, own_contender, peer_contender
from bench.contest_report import MIB, TEXT, Contest, report
from bench.machine import describe_machine, threads_available
from bench.page import write_section
from bench.windows import Windows
from core.engine.architectures.description import inspect_folder
from core.settings import get_settings
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

METHODS = ("magnitude", "wanda", "sparsegpt")
PATTERNS = ("unstructured", "4:8", "2:4")
OURS = "Secateur"
OURS_FLOAT32 = "Secateur, float32 forward"


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
    try:
        text = _contest(given)
    except CellFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{text}", flush=True)
    if given.write:
        write_section(given.write, "against_llmcompressor", text)
    return 0


def _contest(given: argparse.Namespace) -> str:
    _fetch_samples([given.model, given.calibration, given.evaluation])
    peer, release = peer_contender(given.length, batch=given.peer_batch, upgrade=given.fresh)
    print(f"{describe_machine()}; {release}", flush=True)
    rates = run(own_program("bench.machine_cell"), {"threads": given.threads}, "machine").result
    stage = _stage(given)
    content = stage.content()
    dense = judge_dense(stage, content).perplexity[TEXT]
    cells: list[tuple[Job, Contender, Figures | None]] = []
    for job in [Job(method, pattern) for method in given.methods for pattern in PATTERNS]:
        contenders = [own_contender(OURS, {})]
        if job.method != "magnitude" and job.pattern == "unstructured":
            contenders.append(own_contender(OURS_FLOAT32, {"forward_dtype": "float32"}))
        contenders.append(peer)
        for contender in contenders:
            figures = contend(job, contender, stage, content)
            cells.append((job, contender, figures))
            print(f"{job.title}, {contender.title}: {_brief(figures)}", flush=True)
    contest = Contest(
        machine=describe_machine(),
        releases=[own_release(), release],
        model=inspect_folder(given.model),
        tokens=given.samples * given.length,
        rates=rates,
        dense=dense,
        cells=cells,
    )
    return report(contest, [OURS, OURS_FLOAT32], PEER)


def _brief(figures: Figures | None) -> str:
    if figures is None:
        return "not offered"
    return f"{figures.seconds:.1f} s, {figures.peak_bytes / MIB:,.0f} MiB, perplexity {figures.perplexity[TEXT]:,.2f}"


def _fetch_samples(needed: list[Path]) -> None:
    """`secateur samples`, where what it brings is needed and not there; raises CellFailed where a path is missing."""
    home = get_settings().home
    if any(not path.exists() and path.is_relative_to(home) for path in needed):
        subprocess.run([Path(sys.executable).with_name("secateur"), "samples"], check=True)
    for path in needed:
        if not path.exists():
            raise CellFailed(f"there is no {path}")


def _stage(given: argparse.Namespace) -> Stage:
    files = {
        use: Windows(given.model.absolute(), getattr(given, use), use, given.samples, given.length)
        for use in ("calibration", "evaluation")
    }
    return Stage(
        model=given.model.absolute(),
        calibration=files["calibration"].written(given.threads),
        texts={TEXT: files["evaluation"].written(given.threads)},
        threads=given.threads,
        fresh=given.fresh,
    )


if __name__ == "__main__":
    sys.exit(main())
