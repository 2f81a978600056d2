"""What was found with every seed so far, as a section of a page: faults and stages, how often, and how long it took to
recover.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.page import table, write_section
from core.service.jobs.states import STAGES

SECTION = "chaos"

Result = dict[str, Any]
"""A finished seed: `seed`, `faults` (each with `kind`, `stage` or None, and `recovery_seconds`, None where it took too
long), and `violations`."""


def report(results: Sequence[Result]) -> str:
    """Return the section: what ran, faults by kind, and faults by the stage the job was in that they were aimed at."""
    faults = [fault for result in results for fault in result["faults"]]
    violations = sum(len(result["violations"]) for result in results)
    seeds = "1 seed" if len(results) == 1 else f"{len(results)} seeds"
    facts = [
        f"- {seeds}, {len(faults):,} faults, {violations:,} violations.",
        f"- {describe_machine()}.",
    ]
    recovery: dict[str, list[float | None]] = defaultdict(list)
    stages: dict[str, int] = defaultdict(int)
    for fault in faults:
        recovery[fault["kind"]].append(fault["recovery_seconds"])
        stages[fault["stage"] or "none"] += 1
    places = [*STAGES, "none"]
    by_kind = table(
        ["fault", "count", "longest recovery, s"],
        [[kind, str(len(times)), _longest(times)] for kind, times in sorted(recovery.items())],
        text_columns=1,
    )
    by_stage = table(
        ["stage", "count"],
        [[stage, str(count)] for stage, count in sorted(stages.items(), key=lambda row: places.index(row[0]))],
        text_columns=1,
    )
    return "\n\n".join(["\n".join(facts), by_kind, by_stage])


def write(page: Path, results: Sequence[Result]) -> None:
    """Put the section into a page, between its markers. Raises ValueError where the page has none."""
    write_section(page, SECTION, report(results))


def _longest(times: Sequence[float | None]) -> str:
    known = [seconds for seconds in times if seconds is not None]
    return "too long" if len(known) < len(times) else f"{max(known):.1f}"
