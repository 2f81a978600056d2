"""docs/claims.md: every claim with its rule, plot and figures, and the line that says how it is decided."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from bench.cells import own_release
from bench.claims.claim import FEWEST_SEEDS, Claim, Part, Run, Verdict
from bench.claims.plots import Series, draw, series
from bench.claims.running import Found
from bench.machine import describe_machine
from bench.page import table

_NOT_RUN = "not run yet"


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
