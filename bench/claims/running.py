"""Every claim's cells, one for each seed: recalled, or run in processes of their own, some at a time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.cells import CellFailed, Program, cell_key, engine_program, recall, remember, run
from bench.claims.claim import Claim, Run
from bench.machine import describe_machine, threads_available

_FOLDER = Path(__file__).parent
_SHARED = ("data.py", "knee.py", "language.py", "networks.py", "record.py")

Found = dict[tuple[str, int], Run]
"""The runs that are there, by claim name and seed."""


@dataclass(frozen=True)
class Cell:
    """A claim and a seed. One that measures time has every thread, the others one each."""

    claim: Claim
    seed: int

    @property
    def spec(self) -> dict[str, Any]:
        """What its program is given."""
        threads = threads_available() if self.claim.is_alone else 1
        return {
            "claim": self.claim.name,
            "seed": self.seed,
            "threads": threads,
            "setting": dict(self.claim.setting),
        }

    @property
    def program(self) -> Program:
        """Changes with the engine, with what measurements share, and with its own; not with rules and plots."""
        sources = [*(_FOLDER / name for name in _SHARED), _FOLDER / "measurements" / f"{self.claim.name}.py"]
        return engine_program("bench.claims.cell", sources)

    @property
    def key(self) -> str:
        """The name its figures are kept under."""
        return cell_key(self.program, self.spec, describe_machine())


def recalled(claims: Sequence[Claim]) -> Found:
    """The runs that are kept."""
    found: Found = {}
    for claim in claims:
        for seed in claim.seeds:
            figures = recall(Cell(claim, seed).key)
            if figures is not None:
                found[claim.name, seed] = Run.of(figures)
    return found


def complete(claims: Sequence[Claim], found: Found, say: Callable[[str], None]) -> bool:
    """Run what `found` lacks, into it: as many cells at a time as there are processor cores, those that measure time
    alone and last. Whether all succeeded. A KeyboardInterrupt ends the cells that run, and goes on.
    """
    missing = [Cell(claim, seed) for claim in claims for seed in claim.seeds if (claim.name, seed) not in found]
    together = [cell for cell in missing if not cell.claim.is_alone]
    alone = [cell for cell in missing if cell.claim.is_alone]
    succeeded = True
    for cells, processes in ((together, threads_available()), (alone, 1)):
        for cell, figures in _run(cells, processes, say):
            if figures is None:
                succeeded = False
            else:
                found[cell.claim.name, cell.seed] = Run.of(figures)
    return succeeded


def _run(
    cells: Sequence[Cell], processes: int, say: Callable[[str], None]
) -> Iterator[tuple[Cell, dict[str, Any] | None]]:
    """Cells as they end, with their figures; None where one failed, and `say` heard why."""
    stopping = threading.Event()
    with ThreadPoolExecutor(processes) as pool:
        futures = {pool.submit(_measure, cell, stopping, say): cell for cell in cells}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except KeyboardInterrupt:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for child in psutil.Process().children():
                child.terminate()
            raise


def _measure(cell: Cell, stopping: threading.Event, say: Callable[[str], None]) -> dict[str, Any] | None:
    title = f"{cell.claim.name}, seed {cell.seed}"
    if stopping.is_set():
        return None
    say(f"{title}: begun")
    key = cell.key  # of the sources as they are now, whatever becomes of them meanwhile
    try:
        measured = run(cell.program, cell.spec, key)
    except CellFailed as failure:
        if not stopping.is_set():
            say(f"{title}: failed: {failure}")
        return None
    remember(key, measured.result)
    facts = ", ".join(f"{name} {value:.4g}" for name, value in measured.result["facts"].items())
    say(f"{title}: {measured.seconds:.0f} s: {facts or 'done'}")
    return measured.result
