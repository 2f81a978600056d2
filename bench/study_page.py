"""Page of a study: its goals beside what came out, and its tables, by figures that a path names. Loads no torch."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict

from bench.cells import Figures
from bench.page import MISSING, summary, table
from core.engine.evaluation.answers.figures import mean_over


@dataclass(frozen=True)
class Name:
    """Name of a job: the choice of each axis, and the seed."""

    choices: tuple[tuple[str, str], ...]
    seed: int

    @property
    def title(self) -> str:
        """Return the choices in words; one whose name is empty is not said."""
        return f"{self.without_seed()}, seed {self.seed}".removeprefix(", ")

    def without_seed(self, axes: Collection[str] = ()) -> str:
        """Return the choices in words, but for those of some axes."""
        return ", ".join(choice for own, choice in self.choices if choice and own not in axes)

    def fits(self, wanted: Mapping[str, Sequence[str]]) -> bool:
        """Return whether the name has one of the choices of each axis; `seed` is one too."""
        own = {**dict(self.choices), "seed": str(self.seed)}
        return all(own[axis] in choices for axis, choices in wanted.items())

    def instead(self, choice: str, axes: Mapping[str, Sequence[str]]) -> "Name | None":
        """Return the name with a choice in place of its own of that axis; None where no axis has it."""
        axis = next((each for each, choices in axes.items() if choice in choices), None)
        if axis is None:
            return None
        return replace(self, choices=tuple((each, choice if each == axis else own) for each, own in self.choices))


@dataclass
class Results:
    """Results of a study by the names of its jobs, of which all are `planned`; `beside` those of no job, by title.

    `failures` has the reason of each cell that failed.
    """

    planned: Mapping[Name, Mapping[str, Any]] = field(default_factory=dict)
    found: dict[Name, Figures] = field(default_factory=dict)
    beside: dict[str, Figures] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def axes(self) -> dict[str, list[str]]:
        """Return the choices of each axis, in their order."""
        axes: dict[str, list[str]] = {}
        for name in self.planned:
            for axis, choice in name.choices:
                if choice not in axes.setdefault(axis, []):
                    axes[axis].append(choice)
        return axes

    def groups(self, wanted: Mapping[str, Sequence[str]]) -> list[list[Name]]:
        """Return the names that were found and fit, those that differ in the seed alone together."""
        groups: dict[tuple[tuple[str, str], ...], list[Name]] = {
            name.choices: [] for name in self.planned if name.fits(wanted)
        }
        for name in self.found:
            if name.choices in groups:
                groups[name.choices].append(name)
        return [names for names in groups.values() if names]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Record):
    """Column of a table: a figure, and its form; of a text the form is empty."""

    title: str
    figure: str
    form: str = ".3f"


class Table(_Record):
    """Table of the jobs that fit `cells`, a row for all seeds of one; `beside` names rows that are no job's.

    `each` is an axis of which each choice has a table, and `across` one whose choices are the columns, with all figures
    in each. `rows` is a function that gives header and rows of its own. A row's title leaves out what all rows have.
    """

    title: str = ""
    note: str = ""
    first: str = "job"
    columns: list[Column] = []
    cells: dict[str, list[str]] = {}
    beside: list[str] = []
    each: str | None = None
    across: str | None = None
    rows: str | None = None


class Goal(_Record):
    """Goal of a figure, or of what a function gives, of jobs that fit `cells`.

    It is of the row where the figure `best` is least, where that is given.
    """

    what: str
    figure: str
    at_most: float | None = None
    at_least: float | None = None
    form: str = ".3f"
    cells: dict[str, list[str]] = {}
    best: str | None = None


@dataclass(frozen=True)
class Value:
    """A figure: the values of seeds, or one of all requests with its standard error."""

    values: Sequence[float]
    error: float | None = None

    @property
    def mean(self) -> float:
        return fmean(self.values)

    def shown(self, form: str) -> str:
        if self.error is not None:
            return f"{format(self.mean, form)} ± {format(self.error, form)}"
        return summary(self.values, form)


def look(figures: Any, path: Sequence[str]) -> Any:
    """Return what lies at a path of figures, the list of all there are at a `*`; None where there is nothing."""
    for place, step in enumerate(path):
        if step == "*":
            under = figures.values() if isinstance(figures, Mapping) else figures or []
            return [each for each in (look(own, path[place + 1 :]) for own in under) if each is not None]
        if isinstance(figures, Mapping):
            figures = figures.get(step)
        elif isinstance(figures, list) and step.isdigit():
            figures = figures[int(step)] if int(step) < len(figures) else None
        else:
            return None
    return figures


def measured(results: Results, names: Sequence[Name | Figures], figure: str) -> Value | str | None:
    """Return a figure over names that differ in the seed, or of figures that are no job's; None where there is none.

    `A ÷ B` divides paths, seed by seed; B may be a number. Lists, such as one value a request, are added over seeds,
    and the quotient of their sums has a standard error over requests. `A ÷ B with CHOICE` takes B of the job with
    another choice. `ln A ÷ B` is the logarithm of the quotient, `ln A ÷ ln B` a quotient of logarithms. A text is that
    of the first name.
    """
    above, _, below = figure.removeprefix("ln ").partition(" ÷ ")
    below, of_another, choice = below.partition(" with ")
    are_logarithms, below = below.startswith("ln "), below.removeprefix("ln ")
    pairs: list[tuple[Any, Any]] = []
    for name in names:
        own = _figures(results, name)
        other = own
        if of_another and isinstance(name, Name):
            reference = name.instead(choice, results.axes)
            other = None if reference == name else _figures(results, reference)
        numerator = look(own, above.split("."))
        denominator = look(other, below.split(".")) if below and other is not None else None
        if below.isdigit():
            denominator = int(below)
        if numerator is None or numerator == [] or (below and not denominator):
            continue
        pairs.append((numerator, denominator))
    if not pairs:
        return None
    first = pairs[0][0]
    if isinstance(first, str):
        return first
    if isinstance(first, list):
        sums = _added([each for each, _ in pairs])
        counts = _added([each for _, each in pairs]) if below else [float(len(pairs))] * len(sums)
        ratio, error = mean_over(sums, counts)
        return None if ratio is None else Value([ratio], error if below else None)
    if are_logarithms:
        return Value([math.log(one) / math.log(two) for one, two in pairs])
    values = [float(one) / float(two) if below else float(one) for one, two in pairs]
    return Value([math.log(each) for each in values] if figure.startswith("ln ") else values)


def _figures(results: Results, name: Name | Figures | None) -> Figures | None:
    if name is None:
        return None
    if not isinstance(name, Name):
        return {**name.get("probe", {}), **name, "beside": results.beside}
    found = results.found.get(name)
    return None if found is None else {**found, "beside": results.beside}


def _added(lists: Sequence[Sequence[float]]) -> list[float]:
    return [float(sum(each)) for each in zip(*lists, strict=True)]


def page(results: Results, goals: Sequence[Goal], tables: Sequence[Table]) -> str:
    """Return the section; what was not run is left out of tables, marked among the goals, and named at the end."""
    parts = []
    if goals:
        parts.append(
            table(("what", "goal", "came out", "met"), [_goal(results, each) for each in goals], text_columns=4)
        )
    for each in tables:
        parts += _table(results, each)
    if missing := [name for name in results.planned if name not in results.found]:
        seeds: dict[str, list[str]] = {}
        for name in missing:
            seeds.setdefault(name.without_seed(), []).append(str(name.seed))
        titles = "; ".join(f"{title}, seed {', '.join(own)}" for title, own in seeds.items())
        parts.append(f"Not run: {len(missing)} of {len(results.planned)} cells: {titles}.")
    if results.failures:
        reasons = [[title, reason.splitlines()[-1][:300]] for title, reason in results.failures.items()]
        parts += ["### Left out", table(["cell", "reason"], reasons)]
    return "\n\n".join(parts)


def _goal(results: Results, goal: Goal) -> tuple[str, ...]:
    groups: list[Sequence[Name | Figures]] = [*results.groups(goal.cells)]
    what = goal.what
    if goal.best is not None:
        rated = [(value.mean, place) for place, names in enumerate(groups) if (value := _of(results, names, goal.best))]
        groups = [groups[min(rated)[1]]] if rated else []
        if groups and isinstance(name := groups[0][0], Name):
            what = f"{what}, {name.without_seed()}"
    value = _of(results, groups[0] if groups else [{}], goal.figure)
    low, high = goal.at_least, goal.at_most
    limits = f"{low:g} … {high:g}" if low is not None and high is not None else ""
    limits = limits or (f"≥ {format(low, goal.form)}" if low is not None else f"≤ {high:g}")
    if value is None:
        return what, limits, MISSING, MISSING
    met = (low is None or value.mean >= low) and (high is None or value.mean <= high)
    return what, limits, value.shown(goal.form), "yes" if met else "no"


def _of(results: Results, names: Sequence[Name | Figures], figure: str) -> Value | None:
    value = function_of(figure)(results) if ":" in figure else measured(results, names, figure)
    return value if isinstance(value, Value) else None


def _table(results: Results, wanted: Table) -> Iterator[str]:
    for choice in results.axes.get(wanted.each, []) if wanted.each else [None]:
        header, rows = function_of(wanted.rows)(results) if wanted.rows else _rows(results, wanted, choice)
        if rows:
            title = f"{wanted.title}{choice or ''}"
            yield from filter(None, (title and f"### {title}", wanted.note))
            yield table(header, rows, text_columns=1)


def function_of(place: str) -> Any:
    """Return the function that `module:function` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _rows(results: Results, wanted: Table, choice: str | None) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: first those that are no job's, then those of jobs with the choice."""
    named: list[tuple[str, Sequence[Name | Figures]]] = []
    for title in wanted.beside:
        own = look(results.beside, title.split(".")) or {}
        several = all(isinstance(each, Mapping | list) for each in own.values())
        named += [(name, [{"probe": each}]) for name, each in (own if several else {title: own}).items()]
    cells = wanted.cells if choice is None else {**wanted.cells, str(wanted.each): [choice]}
    left_out = {str(wanted.across), *(axis for axis, choices in cells.items() if len(choices) == 1)}
    groups: list[list[Name]] = [] if wanted.beside and not cells else results.groups(cells)
    if wanted.across is None:
        header = [each.title for each in wanted.columns]
        named += [(names[0].without_seed(left_out), names) for names in groups]
        return [wanted.first, *header], [
            [title, *(_shown(results, names, each) for each in wanted.columns)] for title, names in named
        ]
    choices = [each for each in results.axes[wanted.across] if each in wanted.cells.get(wanted.across, [each])]
    rows: dict[str, dict[str, str]] = {}
    for names in groups:
        place = dict(names[0].choices)[wanted.across]
        shown = "; ".join(_shown(results, names, each) for each in wanted.columns)
        rows.setdefault(names[0].without_seed(left_out), {})[place] = shown
    across = [[title, *(row.get(each, MISSING) for each in choices)] for title, row in rows.items()]
    besides = [[title, *[_shown(results, names, wanted.columns[0])] * len(choices)] for title, names in named]
    return [wanted.first, *choices], besides + across


def _shown(results: Results, names: Sequence[Name | Figures], column: Column) -> str:
    if column.figure == "seeds":
        return str(len(names))
    if any((_figures(results, name) or {}).get("offered") is False for name in names):
        return "not offered"
    value = measured(results, names, column.figure)
    if value is None:
        return MISSING
    return value if isinstance(value, str) else value.shown(column.form)
