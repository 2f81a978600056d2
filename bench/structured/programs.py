"""Programs of the structured bench's cells, each with the code it depends on. Loads no torch."""

from functools import cache
from pathlib import Path

from bench.cells import Program, engine_program, own_release
from bench.machine import describe_machine
from bench.structured.figures import Origin

_HERE = Path(__file__).parent
_BASELINES = sorted((_HERE / "baselines").glob("*.py"))
_JUDGING = [_HERE / "opening.py", _HERE.parent / "evaluate_cell.py", *_BASELINES]


@cache
def pruner(is_baseline: bool) -> Program:
    """Return what prunes, and trains, a row: the engine, or a baseline of this bench."""
    if is_baseline:
        return engine_program("bench.structured.baselines.cell", _BASELINES)
    return engine_program("bench.structured.prune_cell")


@cache
def evaluator() -> Program:
    """Return what judges a checkpoint."""
    return engine_program("bench.structured.evaluate_cell", _JUDGING)


@cache
def timer() -> Program:
    """Return what times a shape."""
    return engine_program("bench.structured.latency_cell", _JUDGING)


def origin(program: Program, threads: int) -> Origin:
    """Return what figures are of that this program takes here and now."""
    return Origin(describe_machine(), threads, own_release(), program.code.removeprefix(f"{own_release()} "))
