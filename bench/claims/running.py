"""Cells of the claims, one for each seed: recalled, or run in processes of their own, some at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cells import Cell, Runner, cell_key, engine_program, recalled, run
from bench.claims.claim import Claim, Run
from bench.machine import describe_machine, threads_available

_FOLDER = Path(__file__).parent
_SHARED = ("data.py", "language.py", "networks.py", "record.py")
Found = dict[tuple[str, int], Run]
"""The runs that are there, by claim name and seed."""


def cells_of(claims: Sequence[Claim]) -> dict[tuple[str, int], Cell]:
    """Return the cells of claims, by name and seed."""
    return {(claim.name, seed): _cell(claim, seed) for claim in claims for seed in claim.seeds}


def measure(claims: Sequence[Claim], shown: Sequence[Claim], runner: Runner) -> Found:
    """Return the runs of the claims that are shown, those that are kept, and of some claims those that were missing.

    As many cells run at a time as there are processor cores, those that measure time alone and last.
    """
    found: dict[tuple[str, int], dict[str, Any]] = recalled(cells_of(shown))
    for is_alone, at_once in ((False, threads_available()), (True, 1)):
        chosen = [claim for claim in claims if claim.is_alone is is_alone]
        found |= runner.figures(cells_of(chosen), _brief, at_once=at_once)
    return {name: Run.of(figures) for name, figures in found.items()}


def _cell(claim: Claim, seed: int) -> Cell:
    """Return the cell of a seed; it changes with the engine, with what measurements share, and with its own source, not
    with rules and plots. One that measures time has every thread, the others one each.
    """
    spec = {
        "claim": claim.name,
        "seed": seed,
        "threads": threads_available() if claim.is_alone else 1,
        "setting": dict(claim.setting),
    }
    sources = [*(_FOLDER / name for name in _SHARED), _FOLDER / "measurements" / f"{claim.name}.py"]
    program = engine_program("bench.claims.record:measure", sources)
    key = cell_key(program, spec, describe_machine())
    return Cell(f"{claim.name}, seed {seed}", key, lambda: run(program, spec, key).result)


def _brief(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures["facts"].items()) or "done"
