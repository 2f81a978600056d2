"""A grid and a search over the same points: `python -m bench.sweeps [--write docs/sweeps.md]`.

Both run as sweeps of the service on the sample model. It is counted how often the dense model was evaluated, and how
many jobs it took the search to find what the whole grid shows. Results are cached by the hash of the sweep, the
releases and the machine, so that the command goes on where it was ended.
"""

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cells import Cell, Runner, own_release
from bench.machine import describe_machine
from bench.page import show, table
from bench.service import sample_service, service_key
from secateur import Client, Sweep
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

SECTION = "bench-sweeps"
METHODS = ("magnitude", "wanda", "sparsegpt")
SPARSITIES = (0.3, 0.4, 0.5, 0.6)
LENGTH = 128

JOB: dict[str, Any] = {
    "model": MODEL,
    "calibration": {"dataset": CALIBRATION, "samples": 8, "sequence_length": LENGTH},
    "evaluation": {"datasets": [EVALUATION], "samples": 8, "sequence_length": LENGTH},
}
GRID: dict[str, Any] = {
    "name": "bench: every point",
    "job": JOB,
    "grid": {"method": list(METHODS), "sparsity": list(SPARSITIES)},
    "max_concurrent": 1,
}


def search_for(limit: float) -> dict[str, Any]:
    """The sparsest of the same points whose perplexity ratio is within the limit."""
    search = {
        "objective": "min_parameters",
        "subject_to": {"max_perplexity_ratio": limit},
        "methods": list(METHODS),
        "sparsities": list(SPARSITIES),
    }
    return {"name": "bench: a search", "job": JOB, "search": search, "max_concurrent": 1}


def cell_of(client: Client, body: Mapping[str, Any]) -> Cell:
    """Return the cell of a sweep.

    Its figures are the results as they were answered, what each job's report says of the dense model, and seconds.
    """
    key = service_key(body)

    def work() -> dict[str, Any]:
        begun = time.perf_counter()
        sweep = client.submit_sweep(idempotency_key=key, **body)
        if sweep.finished and sweep.status != "succeeded":
            sweep = client.resume_sweep(sweep.id)
        ended = client.wait_sweep(sweep.id, on_change=_tell)
        seconds = time.perf_counter() - begun
        results = client.sweep_results(ended.id)
        jobs = {point.job: _job(client, point.job) for point in results.points if point.job}
        return {"results": results.model_dump(mode="json"), "jobs": jobs, "seconds": seconds}

    return Cell(body["name"], key, work)


def _job(client: Client, job_id: str) -> dict[str, Any]:
    dense = (client.report(job_id).model_extra or {})["dense"]
    metrics = client.job(job_id).metrics
    seconds = None if metrics is None or metrics.seconds is None else metrics.seconds.total
    told = sum(event.data.get("name") == "dense_evaluation" for event in client.events(job_id))
    return {"measured": dense["measured"], "taken": dense["taken"], "told": told, "seconds": seconds}


def _tell(sweep: Sweep) -> None:
    counts = sweep.points
    print(f"{sweep.id} {sweep.status}: {counts.succeeded} succeeded, {counts.failed} failed", flush=True)


def unique_limit(points: Sequence[Mapping[str, Any]]) -> float:
    """A ratio that one point alone keeps at the largest sparsity where any does, the grid's second largest if it can
    be: midway (geometrically) between the best two methods there.
    """
    for sparsity in (SPARSITIES[-2], SPARSITIES[-1], *SPARSITIES[:-2]):
        at = sorted(_ratio(point) for point in points if point["values"]["sparsity"] == sparsity)
        limit = round(math.sqrt(at[0] * at[1]), 3)
        sparser = [_ratio(point) for point in points if point["values"]["sparsity"] > sparsity]
        if at[0] <= limit < min([at[1], *sparser]):
            return limit
    raise ValueError("no limit has a single winner on these figures")


def grid_winner(points: Sequence[Mapping[str, Any]], limit: float) -> Mapping[str, Any]:
    """By looking at every point: the fewest parameters within the limit."""
    kept = [point for point in points if _ratio(point) <= limit]
    return min(kept, key=lambda point: point["figures"]["parameters"])


def _ratio(point: Mapping[str, Any]) -> float:
    return float(point["figures"]["perplexity_ratio"])


def page(grid: dict[str, Any], search: dict[str, Any], limit: float, command: str, threads: int | None) -> str:
    """Both as Markdown; `threads` are a runner's, None: as many as there are cores."""
    measured = {"grid": _measured(grid), "search": _measured(search)}
    points, outcome = grid["results"]["points"], search["results"]["search"]
    winner, whole = search["results"]["points"][outcome["number"]], grid_winner(points, limit)
    same = winner["values"] == whole["values"]
    return "\n\n".join(
        [
            f"Written by `{command}`, on {describe_machine()}; {own_release()}. SmolLM2-135M is calibrated on 8 "
            f"windows of {LENGTH} tokens and evaluated on 8. One job runs at a time"
            + (f", on {threads} thread(s)." if threads else "."),
            f"**The grid**: {len(points)} jobs, {grid['seconds']:.0f} s. The dense model was evaluated "
            f"{measured['grid']} time(s); {len(points) - measured['grid']} jobs reused its figures.",
            _rows(grid),
            f"**The search** for the fewest parameters with a perplexity ratio of at most {limit:g}: "
            f"it ran {outcome['jobs']} jobs of {outcome['candidates']}, in {search['seconds']:.0f} s. The dense model "
            f"was evaluated {measured['search']} time(s). The search found {winner['label']}"
            + (", like the complete grid." if same else f"; the complete grid shows {whole['label']}."),
            _rows(search),
        ]
    )


def _measured(figures: dict[str, Any]) -> int:
    """How often a job evaluated the dense model: by the reports, which the events must bear out."""
    jobs = figures["jobs"].values()
    by_reports: int = sum(job["measured"] for job in jobs)
    by_events: int = sum(job["told"] for job in jobs)
    if by_reports != by_events:
        raise ValueError(f"reports tell of {by_reports} dense evaluations, events of {by_events}")
    return by_reports


def _rows(figures: dict[str, Any]) -> str:
    header = ("method", "dense model", "sparsity", "perplexity", "ratio", "nonzero parameters", "seconds")
    rows = []
    for point in figures["results"]["points"]:
        if point["job"] is None:
            continue
        job, measured = figures["jobs"][point["job"]], point["figures"]
        rows.append(
            (
                point["values"]["method"],
                "evaluated" if job["measured"] else "taken over",
                f"{point['values']['sparsity']:.0%}",
                f"{measured['perplexity']:.2f}",
                f"{measured['perplexity_ratio']:.3f}",
                f"{measured['parameters']:,.0f}",
                f"{job['seconds']:.0f}",
            )
        )
    return table(header, rows)


def _seconds(figures: Mapping[str, Any]) -> str:
    return f"{figures['seconds']:.0f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where the search found what the grid shows, with fewer jobs and one dense evaluation each."""
    parser = argparse.ArgumentParser(prog="python -m bench.sweeps", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    options = parser.parse_args(arguments)
    runner = Runner.of(options)
    with sample_service() as service:
        threads = service.settings.threads
        grid = runner.figures({None: cell_of(service.client, GRID)}, _seconds).get(None)
        limit = unique_limit(grid["results"]["points"]) if grid else 0.0
        cells = {None: cell_of(service.client, search_for(limit))} if grid else {}
        search = runner.figures(cells, _seconds).get(None)
    if grid is None or search is None:
        return 1
    command = " ".join(["python -m bench.sweeps", *(arguments or sys.argv[1:])])
    show(page(grid, search, limit, command, threads), SECTION, options.write)
    outcome, points = search["results"]["search"], grid["results"]["points"]
    found = search["results"]["points"][outcome["number"]]["values"]
    is_right = found == grid_winner(points, limit)["values"] and outcome["jobs"] < len(points)
    return int(not (is_right and _measured(grid) == _measured(search) == 1))


if __name__ == "__main__":
    sys.exit(main())
