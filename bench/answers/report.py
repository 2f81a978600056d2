"""Page of the bench of answers: goals beside what came out, and tables. Loads no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from bench.answers.plan import GOAL_REMOVAL, MIXTURES, REMOVALS, WIKIPEDIA, Case
from bench.answers.running import Bench
from bench.cells import Figures
from bench.page import MISSING, table
from core.engine.evaluation.answers.figures import mean_over

_KL, _BITS, _LENGTH = 0.5, 1.02, (0.9, 1.1)
"""Goals: ratios to Wikipedia's, and the length of answers ÷ the dense model's."""
Value = tuple[float | None, float | None]
"""A figure and its standard error."""


def page(bench: Bench) -> str:
    """Return the section; what was not run is left out of tables, marked among the goals, and named at the end."""
    parts = [table(("what", "goal", "came out", "met"), list(_goals(bench)), text_columns=4)]
    for removal in REMOVALS:
        rows = [_row(bench, cases) for cases in _groups(bench, removal)]
        if rows:
            parts += [f"### {removal}", table(_HEADER, rows, text_columns=1)]
    if bench.missing:
        of = f"{len(bench.missing)} of {len(bench.planned)} cells"
        named = "; ".join(f"{name}, seed {', '.join(seeds)}" for name, seeds in _seeds(bench.missing).items())
        parts.append(f"Not run: {of}: {named}.")
    return "\n\n".join(parts)


_HEADER = (
    "calibrated on",
    "KL a token",
    "÷ Wikipedia's",
    "same first choice",
    "length ÷ dense",
    "bits per byte ÷ dense",
    "÷ Wikipedia's",
    "perplexity ÷ dense",
    "seeds",
)


def _seeds(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Return the seeds of cases, by removal and text."""
    seeds: dict[str, list[str]] = {}
    for case in cases:
        seeds.setdefault(f"{case.removal}, {case.text}", []).append(str(case.seed))
    return seeds


def _groups(bench: Bench, removal: str) -> list[list[Case]]:
    """Return the cases of a removal that were run: the seeds of each mixture, first those without training."""
    groups = [_cases(bench, removal, mixture, distilled) for distilled in (False, True) for mixture in MIXTURES]
    return [cases for cases in groups if cases]


def _row(bench: Bench, cases: list[Case]) -> tuple[str, ...]:
    found = [bench.found[case] for case in cases]
    jobs = [bench.jobs[case] for case in cases]
    return (
        cases[0].text,
        _shown(_kl(found), 3),
        _shown(_kl_ratio(bench, cases), 2),
        f"{_sum(found, 'same') / _sum(found, 'predictions'):.0%}",
        _shown(_length(bench, found), 2),
        f"{fmean(job['bits_per_byte']['ratio'] for job in jobs):.3f}",
        _shown((_bits_ratio(bench, cases), None), 3),
        f"{fmean(job['perplexity'] for job in jobs):.2f}",
        str(len(cases)),
    )


def _goals(bench: Bench) -> Iterator[tuple[str, ...]]:
    groups = [_cases(bench, GOAL_REMOVAL, each) for each in MIXTURES if each != WIKIPEDIA]
    rated = [cases for cases in groups if _kl_ratio(bench, cases)[0] is not None]
    cases = min(rated, key=lambda each: _kl_ratio(bench, each)[0] or 0, default=None)
    best = None if cases is None else cases[0].mixture
    kl: Value = (None, None)
    bits = length = None
    if cases is not None:
        kl, bits = _kl_ratio(bench, cases), _bits_ratio(bench, cases)
        length = _length(bench, [bench.found[case] for case in cases])[0]
    of = f"{GOAL_REMOVAL}, {best or 'the best mixture'}"
    yield _goal(f"KL ÷ Wikipedia's, {of}", f"≤ {_KL}", _shown(kl, 2), kl[0] is not None, (kl[0] or 0) <= _KL)
    yield _goal(f"bits per byte ÷ Wikipedia's, {of}", f"≤ {_BITS}", _shown((bits, None), 3), bits, (bits or 0) <= _BITS)
    low, high = _LENGTH
    met = low <= (length or 0) <= high
    yield _goal(f"length of answers ÷ dense, {of}", f"{low} … {high}", _shown((length, None), 2), length, met)


def _goal(what: str, goal: str, shown: str, known: object, met: bool) -> tuple[str, ...]:
    return what, goal, shown, (("yes" if met else "no") if known else MISSING)


def _cases(bench: Bench, removal: str, mixture: str, distilled: bool = False) -> list[Case]:
    wanted = removal, mixture, distilled
    return [case for case in bench.found if (case.removal, case.mixture, case.distilled) == wanted]


def _kl(found: Sequence[Figures]) -> Value:
    """Return the KL divergence a token, and its standard error over requests; seeds of a request are one."""
    return mean_over(_over_seeds(found, "divergences"), _over_seeds(found, "predictions"))


def _on_wikipedia(case: Case) -> Case:
    """Return the same job on Wikipedia alone."""
    return replace(case, mixture=WIKIPEDIA)


def _kl_ratio(bench: Bench, cases: Sequence[Case]) -> Value:
    """Return the KL divergence ÷ that of the same on Wikipedia, request by request, over seeds of both."""
    pairs = [
        (bench.found[case], other)
        for case in cases
        if case.mixture != WIKIPEDIA and (other := bench.found.get(_on_wikipedia(case))) is not None
    ]
    if not pairs:
        return None, None
    mine, others = zip(*pairs, strict=True)
    return mean_over(_over_seeds(mine, "divergences"), _over_seeds(others, "divergences"))


def _bits_ratio(bench: Bench, cases: Sequence[Case]) -> float | None:
    ratios = [
        bench.jobs[case]["bits_per_byte"]["pruned"] / bench.jobs[other]["bits_per_byte"]["pruned"]
        for case in cases
        if (other := _on_wikipedia(case)) in bench.jobs and case.mixture != WIKIPEDIA
    ]
    return fmean(ratios) if ratios else None


def _length(bench: Bench, found: Sequence[Figures]) -> Value:
    """Return the tokens of answers ÷ the dense model's, and its standard error over requests."""
    dense = [len(found) * len(answer) for answer in bench.dense["answers"]]
    lengths = [[len(answer) for answer in each["answers"]] for each in found]
    return mean_over([sum(each) for each in zip(*lengths, strict=True)], dense)


def _over_seeds(found: Sequence[Figures], name: str) -> list[float]:
    return [sum(each) for each in zip(*(figures[name] for figures in found), strict=True)]


def _sum(found: Sequence[Figures], name: str) -> float:
    return sum(_over_seeds(found, name))


def _shown(value: Value, digits: int) -> str:
    figure, error = value
    if figure is None:
        return MISSING
    return f"{figure:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")
