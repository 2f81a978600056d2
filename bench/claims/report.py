"""docs/claims.md: every claim with its rule, plot and figures, and the line that says how it is decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from bench.cells import own_release
from bench.claims.claim import FEWEST_SEEDS, Claim, Panel, Part, Run, Verdict
from bench.machine import describe_machine
from bench.page import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Found = Mapping[tuple[str, int], Run]
"""The runs that are there, by claim name and seed."""
_NOT_RUN = "not run yet"
_STYLE: Any = {"svg.hashsalt": "claims", "svg.fonttype": "none", "font.size": 8, "axes.grid": True, "grid.alpha": 0.3}
_MARKERS = "osv^D<>pP*"
_INCHES = (4.2, 3.1)


@dataclass(frozen=True)
class Series:
    """One line over all seeds: its places in order, and for each the values that the seeds gave."""

    name: str
    xs: Sequence[float | str]
    values: Sequence[Sequence[float]]

    @property
    def means(self) -> list[float]:
        """One for each place."""
        return [sum(each) / len(each) for each in self.values]


def series(runs: Sequence[Run], panel: str) -> list[Series]:
    """The lines of a panel, in the order they were measured in."""
    gathered: dict[str, dict[float | str, list[float]]] = {}
    for run in runs:
        for name, points in run.curves.get(panel, {}).items():
            for x, y in points:
                gathered.setdefault(name, {}).setdefault(x, []).append(y)
    return [Series(name, list(points), list(points.values())) for name, points in gathered.items()]


def write_page(page: Path, claims: Sequence[Claim], found: Found, command: str) -> None:
    """The page, whole, and beside it a folder of its name with a plot of every claim that ran."""
    plots = page.with_suffix("")
    for claim in claims:
        runs = _runs(claim, found)
        if runs:
            draw(claim.panels, runs, plots / f"{claim.name}.svg")
    page.write_text(text(claims, found, command, plots.name))


def text(claims: Sequence[Claim], found: Found, command: str, plots: str) -> str:
    """The page; `plots` is the folder of the plots as seen from it."""
    rows = [
        (
            f"{number}",
            claim.title,
            _questions(claim, _runs(claim, found)),
            f"**{_decided(claim, _runs(claim, found))}**",
        )
        for number, claim in enumerate(claims, 1)
    ]
    parts = [
        f"""# Claims

The papers behind these methods make claims. On this page the claims are tested with this service's own methods, on
small networks and a small language model. `{command}` writes the complete page. If it is interrupted,
`make claims` continues where it stopped.

{describe_machine()}; {own_release()}.

**The rule.** Each claim is split into statements, and each statement is a question whose answer is yes or no. The
questions were written before the run. Every seed answers every question by its own figures. A question *holds* if every
seed says yes, and *does not hold here* if every seed says no. It is *inconclusive* if the seeds disagree or fewer than
{FEWEST_SEEDS} ran. A claim holds if all its questions hold. It does not hold if any of its questions does not.
Otherwise it is inconclusive.

In the plots a line is the mean over the seeds, and the band goes from the smallest to the largest value. In the tables,
± is the sample standard deviation over the seeds.

{table(("claim", "what it says", "questions", "decided"), rows)}
"""
    ]
    parts += [_section(number, claim, _runs(claim, found), plots) for number, claim in enumerate(claims, 1)]
    return "\n".join(parts)


def _runs(claim: Claim, found: Found) -> list[Run]:
    return [found[claim.name, seed] for seed in claim.seeds if (claim.name, seed) in found]


def _decided(claim: Claim, runs: Sequence[Run]) -> str:
    return claim.verdict(runs) if runs else _NOT_RUN


def _questions(claim: Claim, runs: Sequence[Run]) -> str:
    """How many were decided in which way."""
    verdicts = [part.verdict(runs) for part in claim.parts] if runs else []
    counts = [f"{verdicts.count(each)} {each.removesuffix(' here')}" for each in Verdict if each in verdicts]
    return ", ".join(counts)


def _section(number: int, claim: Claim, runs: Sequence[Run], plots: str) -> str:
    questions = "\n".join(f"- {part.question}{_answers(part, runs)}" for part in claim.parts)
    blocks = [f"## {number}. {claim.title}", f"Papers: {'; '.join(claim.papers)}.", claim.setup, questions]
    if runs:
        blocks.append(f"![{claim.title}]({plots}/{claim.name}.svg)")
        blocks += [
            f"{panel.title} ({panel.y}):\n\n{_table(series(runs, panel.key), panel.x)}" for panel in claim.panels
        ]
        facts = _facts(runs)
        if facts:
            blocks.append(facts)
        blocks.append(f"{len(runs)} of {len(claim.seeds)} seeds ran.")
    blocks.append(f"Claim {number}: **{_decided(claim, runs)}**")
    return "\n\n".join(blocks) + "\n"


def _answers(part: Part, runs: Sequence[Run]) -> str:
    if not runs:
        return ""
    answers = ["yes" if part.answer(run) else "no" for run in runs]
    return f" *{part.verdict(runs).capitalize()}* ({', '.join(answers)})."


def _table(lines: Sequence[Series], label: str) -> str:
    xs = list(dict.fromkeys(x for line in lines for x in line.xs))
    if all(not isinstance(x, str) for x in xs):
        xs.sort(key=float)
    rows = []
    for line in lines:
        values = dict(zip(line.xs, line.values, strict=True))
        rows.append((line.name, *(_spread(values[x]) if x in values else "" for x in xs)))
    return table((label or "line", *(str(x) for x in xs)), rows)


def _facts(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.facts)
    figures = [f"{name} {_spread([run.facts[name] for run in runs if name in run.facts])}" for name in names]
    return f"Other figures, as means over the seeds: {'; '.join(figures)}." if figures else ""


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3g}" + (f" ± {stdev(values):.1g}" if len(values) > 1 else "")


def draw(panels: Sequence[Panel], runs: Sequence[Run], file: Path) -> None:
    """Write all panels side by side; the same figures give the same bytes."""
    import matplotlib  # slow to import, and for this alone
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_INCHES[0] * len(panels), _INCHES[1]), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, panel, series(runs, panel.key))
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", metadata={"Date": None})


def _draw_panel(axes: "Axes", panel: Panel, lines: Sequence[Series]) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    if panel.is_logarithmic:
        axes.set_yscale("log", nonpositive="mask")
    if any(isinstance(x, str) for line in lines for x in line.xs):
        _bars(axes, lines)
    else:
        for line, marker in zip(lines, _MARKERS, strict=False):
            xs = [float(x) for x in line.xs]
            axes.plot(xs, line.means, marker=marker, markersize=4, label=line.name)
            axes.fill_between(xs, *_extent(line.values), alpha=0.2)
    if lines:
        axes.legend(fontsize=7)


def _bars(axes: "Axes", lines: Sequence[Series]) -> None:
    """Groups of bars, one group for each name on the axis."""
    places: Mapping[float | str, int] = {
        x: place for place, x in enumerate(dict.fromkeys(x for line in lines for x in line.xs))
    }
    width = 0.8 / len(lines)
    for number, line in enumerate(lines):
        lowest, highest = _extent(line.values)
        whiskers = [  # a mean of equal figures may lie a rounding beyond them
            [max(0.0, mean - low) for mean, low in zip(line.means, lowest, strict=True)],
            [max(0.0, high - mean) for mean, high in zip(line.means, highest, strict=True)],
        ]
        middle = (number - (len(lines) - 1) / 2) * width
        axes.bar([places[x] + middle for x in line.xs], line.means, width, yerr=whiskers, capsize=2, label=line.name)
    axes.set_xticks(range(len(places)), [str(name) for name in places])


def _extent(values: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [min(each) for each in values], [max(each) for each in values]
