"""The section of docs/gpu.md that `python -m bench.gpu` writes."""

from dataclasses import dataclass, field
from typing import Any

from bench.cells import own_release
from bench.page import table

GIB = 2**30


@dataclass
class Tables:
    """Figures that were measured, as the page has them."""

    tests: dict[str, Any] | None = None
    pruned: list[list[str]] = field(default_factory=list)
    sparse: list[list[str]] = field(default_factory=list)
    calibration: dict[str, str] = field(default_factory=dict)
    """Size of the calibration set of each model in `pruned`."""
    precisions: set[tuple[str, str]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    is_complete: bool = False
    has_failed: bool = False


def pruned_row(figures: dict[str, Any]) -> list[str]:
    """Return the cells of a row: seconds in all, of forwards and reading, and of solving; peaks of device and host."""
    total, solve, device = (figures[name] for name in ("prune_seconds", "solve_seconds", "device_peak_bytes"))
    parts = ["–", "–"] if solve is None else [f"{total - solve:.1f}", f"{solve:.1f}"]
    peaks = ["–" if device is None else f"{device / GIB:.2f}", f"{figures['host_peak_bytes'] / GIB:.2f}"]
    return [f"{total:.1f}", *parts, *peaks]


def page(tables: Tables, machine: str, command: str) -> str:
    """Return the section: what was measured so far."""
    parts = [f"Measured on **{machine}** with {own_release()}: `{command}`."]
    if not tables.is_complete:
        reason = "A failure" if tables.has_failed else "The time limit"
        parts.append(f"{reason} ended the run; the same command goes on where it was.")
    if tables.tests is not None:
        counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(tables.tests["counts"].items()))
        failed = "".join(f"\n- failed: `{name}`" for name in tables.tests["failed"])
        parts.append(f"Tests that need a GPU: {counts or 'none ran'}.{failed}")
    if tables.pruned:
        header = ("model", "method", "seconds", "forwards", "solving", "device, GiB", "host, GiB")
        parts.append(table(header, tables.pruned))
        about = "; ".join(f"{name}: {size}" for name, size in tables.calibration.items())
        parts.append(
            f"Llamas with random weights in bfloat16; {about}. Seconds are of pruning alone, without loading libraries "
            "and writing the artifact; forwards have reading and statistics with them; peaks are of tensors on the "
            "device and of the process on the host."
        )
    if tables.precisions:
        said = "; ".join(
            f"forwards in {forward}, solvers in float32 with matrix precision `{solver}`"
            for forward, solver in sorted(tables.precisions)
        )
        parts.append(f"Precision: {said} (`highest` is without TF32).")
    if tables.sparse:
        columns = ("model", "linear layer", "tokens", "dense, µs", "2:4, µs", "times as fast")
        parts.append(table(columns, tables.sparse))
        parts.append("A linear layer in bfloat16, dense and in torch's semi-structured form; medians of 20 rounds.")
    return "\n\n".join([*parts, *tables.notes])
