"""The best model at a given speed: `SECATEUR_HOME=.cache/samples python -m bench.speed_targets`.

Every cell is a job of the service on the sample model, kept by what it depends on: the command goes on where it was
ended. Whatever removes something is timed in turn with the dense model, in the engines that are named.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any, Final, NamedTuple

import psutil

from bench.cells import Cell, Figures, Runner, engine_program, own_release
from bench.claims.sources import MissingData
from bench.judging_texts import positive
from bench.machine import describe_machine
from bench.page import MISSING, show, summary, table
from bench.service import HANDBOOK, Service, add_texts, sample_service, service_key
from core.pipeline.reports.drawing import COLOURS, MARKERS, as_svg, dress, open_figure
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

SECTION: Final = "bench-speed-targets"
RATIOS: Final = (0.8, 0.65, 0.5)
"""Decode times ÷ the dense model's."""
_SHARES: Final = {0.8: 0.21, 0.65: 0.39, 0.5: 0.55}
"""Share of the parameters that jobs without a target of time remove to come near such a ratio."""
_TOKENS: Final = 24_576
_TEXTS: Final = (EVALUATION, HANDBOOK)
DENSE, BEST, SEARCH, WITH_TOKENS = "dense", "frontier per layer", "search", "search with vocabulary"


@dataclass(frozen=True)
class Engine:
    """Engine that files run in: its title, its id in a target, and the form and type of its files."""

    title: str
    id: str
    form: str
    type: str


ENGINES: Final = {
    each.id: each
    for each in (
        Engine("llama.cpp Q8_0", "llama-cpp", "gguf", "Q8_0"),
        Engine("OpenVINO int8", "openvino", "openvino", "INT8"),
    )
}
_BY_SIZE: Final[Mapping[str, dict[str, Any]]] = {
    "frontier uniform": {"method": "frontier", "pattern": "structured"},
    BEST: {"method": "frontier", "pattern": "structured", "output": {"layout": "per_layer"}},
    "depth": {"method": "depth", "parameters": {"criterion": "block_influence", "compensation": {"refit": 0.5}}},
}
_BY_TIME: Final[Mapping[str, dict[str, Any]]] = {
    SEARCH: {"method": "frontier", "pattern": "structured", "output": {"layout": "per_layer"}},
    WITH_TOKENS: {
        "method": "frontier", "pattern": "structured", "output": {"layout": "per_layer"},
        "vocabulary": {"tokens": _TOKENS},
    },
}  # fmt: skip
ROWS: Final = (DENSE, *_BY_SIZE, *_BY_TIME)


class Name(NamedTuple):
    """Name of a cell; `engine` is the one whose decode step the target limits, empty where a size is given."""

    row: str
    ratio: float
    engine: str
    seed: int


def bodies(given: argparse.Namespace) -> Iterator[tuple[Name, dict[str, Any]]]:
    """Yield the jobs of the rows, ratios, engines and seeds that are given."""
    engines = [ENGINES[each] for each in given.engines]
    exports = [{"format": each.form, "types": [each.type]} for each in engines]
    judged = {"evaluation": {"datasets": list(_TEXTS), "samples": given.windows, "sequence_length": given.length}}
    if DENSE in given.rows:
        yield Name(DENSE, 1.0, "", 0), {"method": "none", **judged, "output": {"exports": exports}}
    for row in (each for each in given.rows if each != DENSE):
        for ratio in given.ratios:
            for seed in range(given.seeds):
                read = {"dataset": CALIBRATION, "samples": given.samples, "sequence_length": given.length, "seed": seed}
                common = {**_BY_SIZE.get(row, {}), **_BY_TIME.get(row, {}), **judged, "calibration": read}
                output = common.get("output", {})
                if row in _BY_SIZE:
                    more = {"sparsity": _SHARES[ratio], "output": {**output, "exports": exports}}
                    yield Name(row, ratio, "", seed), {**common, **more}
                    continue
                for engine, export in zip(engines, exports, strict=True):
                    target = {"decode_ratio": ratio, "engine": engine.id}
                    more = {"target": target, "output": {**output, "exports": [export]}}
                    yield Name(row, ratio, engine.id, seed), {**common, **more}


def run_job(service: Service, body: Mapping[str, Any]) -> Figures:
    """Run a job to its end and return its figures; a missed target is an end too."""
    loads = [psutil.getloadavg()[0]]
    ended = service.client.wait(service.client.submit(model=MODEL, **body).id)
    metrics, loads = ended.metrics, [*loads, psutil.getloadavg()[0]]
    if metrics is None or metrics.seconds is None:
        ended.raise_for_status()
    assert metrics is not None and metrics.seconds is not None
    return {
        "job": ended.id,
        "status": ended.status,
        "seconds": metrics.seconds.document(),
        "load": loads,
        "perplexity": {name: [each.dense, each.pruned] for name, each in metrics.perplexity.items()},
        "bits_per_byte": {
            name: each.bits_per_byte.document() for name, each in metrics.perplexity.items() if each.bits_per_byte
        },
        "exports": [each.document() for each in metrics.exports],
        "target": None if metrics.target is None else metrics.target.document(),
    }


@dataclass(frozen=True)
class Point:
    """A model in an engine: tokens per second and the dense model's, and what it loses on texts of both kinds."""

    rate: float
    dense_rate: float
    spread: float
    bits: tuple[float, ...]
    excess: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Return decode time ÷ the dense model's."""
        return self.dense_rate / self.rate


def point(figures: Figures, engine: Engine) -> Point | None:
    """Return the point of a job in an engine; None where its file was not timed."""
    bits = tuple(figures["bits_per_byte"][name]["pruned"] for name in _TEXTS)
    excess = tuple(log(pruned / dense) for dense, pruned in (figures["perplexity"][name] for name in _TEXTS))
    for file in figures["exports"]:
        if (file["format"], file["type"]) == (engine.form, engine.type):
            if speed := file.get("speed"):
                decode = speed["decode"]
                return Point(decode["pruned"], decode["dense"], decode["spread"], bits, excess)
            if own := file.get("own_speed"):
                return Point(own["decode"], own["decode"], 0.0, bits, excess)
    return None


def points(found: Mapping[Name, Figures], engine: Engine) -> dict[Name, Point]:
    """Return the points in an engine, by the name of the cell."""
    every = {name: point(figures, engine) for name, figures in found.items() if name.engine in ("", engine.id)}
    return {name: each for name, each in every.items() if each is not None}


def excess_at(curve: Sequence[Point], ratio: float, text: int) -> float | None:
    """Return the excess log-perplexity of a row at a ratio, on straight lines between its points; None outside them.

    The dense model, which loses nothing at 1, is a point of every row.
    """
    known = sorted([(1.0, 0.0), *((each.ratio, each.excess[text]) for each in curve)])
    for (low, at_low), (high, at_high) in pairwise(known):
        if low <= ratio <= high and high > low:
            return at_low + (at_high - at_low) * (ratio - low) / (high - low)
    return None


def page(found: Mapping[Name, Figures], engines: Sequence[Engine]) -> str:
    """Return the tables: what each model is, and the search against the best of today at equal measured time."""
    header = ["row", "asked", "decode ÷ dense", "tokens/s", *(f"bits per byte, {text}" for text in _TEXTS),
              *(f"excess, {text}" for text in _TEXTS)]  # fmt: skip
    parts = []
    for engine in engines:
        placed = points(found, engine)
        rows = []
        for row, ratio in dict.fromkeys((name.row, name.ratio) for name in placed):
            own = [each for name, each in placed.items() if (name.row, name.ratio) == (row, ratio)]
            columns = [[each.ratio for each in own], [each.rate for each in own]]
            bits = [[each.bits[text] for each in own] for text in range(len(_TEXTS))]
            excess = [[each.excess[text] for each in own] for text in range(len(_TEXTS))]
            asked = f"{ratio:g}" if row in _BY_TIME else MISSING
            rows.append([row, asked, summary(columns[0], ".3f"), summary(columns[1], ".1f"),
                         *(summary(each, ".3f") for each in (*bits, *excess))])  # fmt: skip
        parts += [f"#### {engine.title}", table(header, rows), _against_today(placed)]
    return "\n\n".join(part for part in parts if part)


def _against_today(placed: Mapping[Name, Point]) -> str:
    """Return the excess of the searches ÷ that of today's best at the same measured decode time, by seed."""
    rows = []
    for row in _BY_TIME:
        for ratio in RATIOS:
            quotients: list[list[float]] = [[] for _ in _TEXTS]
            for name, each in placed.items():
                if (name.row, name.ratio) != (row, ratio):
                    continue
                curve = [point for other, point in placed.items() if (other.row, other.seed) == (BEST, name.seed)]
                for text, quotient in enumerate(quotients):
                    best = excess_at(curve, each.ratio, text)
                    if best:
                        quotient.append(each.excess[text] / best)
            if any(quotients):
                cells = [summary(each, ".2f") if each else MISSING for each in quotients]
                worst = max(fmean(each) for each in quotients if each)
                rows.append([f"{row}, {ratio:g}", "yes" if worst <= 0.85 else "no", *cells])
    if not rows:
        return ""
    return table([f"excess ÷ that of {BEST} at equal time", "≤ 0.85", *_TEXTS], rows)


def plot(found: Mapping[Name, Figures], engines: Sequence[Engine]) -> str:
    """Return the plot: bits per byte of the first text over tokens per second, a panel for each engine, as SVG."""
    with open_figure((4.4 * len(engines), 4.0)) as figure:
        for panel, engine in enumerate(engines, 1):
            axes = figure.add_subplot(1, len(engines), panel)
            placed = points(found, engine)
            for number, row in enumerate(ROWS):
                own = sorted((each.rate, each.bits[0]) for name, each in placed.items() if name.row == row)
                if own:
                    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                    axes.plot(*zip(*own, strict=True), color=colour, marker=marker, markersize=5, label=row)
            dress(axes, engine.title, "tokens per second", f"bits per byte, {EVALUATION}")
            if placed:
                axes.legend(fontsize=7)
        return as_svg(figure, f"{MODEL}: quality over speed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    runner, engines = Runner.of(given), [ENGINES[each] for each in given.engines]
    code = engine_program("bench.cell:main").code
    with sample_service() as service:
        try:
            add_texts(service.home)
        except MissingData as error:
            print(error, file=sys.stderr)
            return 1
        cells = {
            name: Cell(
                f"{name.row}, {name.ratio:g} {name.engine} seed {name.seed}",
                f"speed-{service_key(name, body, code)}",
                lambda body=body: run_job(service, body),  # type: ignore[misc]
            )
            for name, body in bodies(given)
        }
        found = runner.figures(cells, lambda told: f"{told['job']}, {told['status']}, {told['seconds']['total']:.0f} s")
    command = f"python -m bench.speed_targets {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    facts = (
        f"`{command}`, on {describe_machine()}; {own_release()}. {MODEL}: calibrated on {given.samples} × "
        f"{given.length} tokens, judged on {given.windows} × {given.length} tokens of each text. Excess is "
        f"ln(perplexity ÷ dense). Rows without a target of time remove {', '.join(map(str, _SHARES.values()))} of the "
        "parameters."
    )
    show("\n\n".join([facts, page(found, engines)]), SECTION, given.write)
    if given.write and found:
        given.write.with_suffix(".svg").write_text(plot(found, engines), "utf-8")
    return int(len(found) < len(cells))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.speed_targets", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--ratios", nargs="*", type=float, choices=RATIOS, default=list(RATIOS), help="decode ÷ dense")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES), help=", ".join(ENGINES))
    parser.add_argument("--seeds", type=positive, default=1, help="draws of calibration text (default 1)")
    parser.add_argument("--samples", type=positive, default=128, help="calibration sequences (default 128)")
    parser.add_argument("--length", type=positive, default=512, help="tokens of a sequence (default 512)")
    parser.add_argument("--windows", type=positive, default=16, help="sequences of each text judged by (default 16)")
    parser.add_argument("--recall", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section, and its plot beside it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
