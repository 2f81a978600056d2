"""The study of a question of quality: `SECATEUR_HOME=.cache/samples python -m bench.study NAME [--write PAGE]`.

`bench/studies/NAME.toml` says which jobs of the service are made, what is measured on their artifacts, and what the
page shows of it. Cells are kept by what they depend on, so that the command goes on where it was ended; Ctrl-C shows
what there is.
"""

import argparse
import json
import shlex
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import psutil
from pydantic import BaseModel, ConfigDict, Field

from bench.cells import Cell, CellFailed, Figures, Program, Runner, engine_program, forget, own_release, recall
from bench.cells import recalled as kept_figures
from bench.cells import run as run_program
from bench.contest import Contest, checkpoint_place
from bench.machine import describe_machine, threads_available
from bench.measurements import merge
from bench.page import show
from bench.service import Service, add_text, sample_service, service_key
from bench.sources import MissingData
from bench.study_page import Goal, Name, Results, Table, function_of, page
from secateur_wire.errors import NotFound, SecateurError
from worker.embedded.register import add_model
from worker.samples.zero_shot import add_task_samples

STUDIES: Final = Path(__file__).parent / "studies"
_AFTER: Final = "after: "
_BRIEFED: Final = ("job", "status", "kl", "perplexity", "offered", "alike", "kept")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Axis(_Record):
    """A way in which jobs differ: what each choice changes in the body."""

    name: str
    choices: dict[str, dict[str, Any]]


class Where(_Record):
    """Changes of the body of all jobs that have one of the choices of each axis."""

    cells: dict[str, list[str]]
    body: dict[str, Any]


class Probe(_Record):
    """Function, `module:function`, that takes a spec and returns figures: of the artifacts of `cells`, all by default.

    Of one that is no job's, `over` gives several cells, each with another value of a field of the spec, and what it
    writes into its `place` is registered in the home as the model that it `registers`.
    """

    work: str
    spec: dict[str, Any] = {}
    cells: dict[str, list[str]] = {}
    over: dict[str, list[str]] = {}
    registers: str | None = None


class Study(_Record):
    """A study: its jobs are `base` with the changes of a choice of each axis, but for what one of `skip` names.

    `seeds` is an axis too, whose number is put into the tables `seed_at` of a body that has them. `beside` are measured
    on no artifact. `report` are the fields of reports that are kept, `data` a function that gives measurements. Where
    there is a `contest`, its function gives the cells of bodies, which are no jobs of the service then.
    """

    section: str
    facts: str
    model: str
    texts: list[str] = []
    seeds: int = Field(1, ge=1)
    seed_at: list[str] = []
    base: dict[str, Any] = {}
    axis: list[Axis] = []
    where: list[Where] = []
    skip: list[dict[str, list[str]]] = []
    report: list[str] = []
    probe: Probe | None = None
    contest: Probe | None = None
    beside: dict[str, Probe] = {}
    goal: list[Goal] = []
    table: list[Table] = []
    data: str | None = None

    def bodies(self) -> Iterator[tuple[Name, dict[str, Any]]]:
        """Yield the name and the body of each job, of which there are none without a base: seed by seed."""
        for seed in range(self.seeds if self.base else 0):
            for choices in product(*(each.choices for each in self.axis)):
                name = Name(tuple(zip((each.name for each in self.axis), choices, strict=True)), seed)
                if any(name.fits(skipped) for skipped in self.skip):
                    continue
                changes = [each.choices[choice] for each, choice in zip(self.axis, choices, strict=True)]
                changes += [each.body for each in self.where if name.fits(each.cells)]
                body: dict[str, Any] = {}
                for each in (self.base, *changes):
                    body = merged(body, each)
                for place in self.seed_at:
                    if isinstance(table := body.get(place), dict):
                        table["seed"] = seed
                yield name, body


def merged(body: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body with changes, table by table: "absent" removes a field, "null" is TOML's lack of a null."""
    together = dict(body)
    for name, value in changes.items():
        if isinstance(value, Mapping):
            before = together.get(name)
            together[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            together[name] = None if value == "null" else value
    return {name: value for name, value in together.items() if value != "absent"}


def read_study(name: str, changes: Sequence[str] = ()) -> Study:
    """Return a study of this package; each change, `base.evaluation.samples=2`, sets a value of its file as JSON."""
    content = tomllib.loads((STUDIES / f"{name}.toml").read_text("utf-8"))
    for change in changes:
        place, _, value = change.partition("=")
        *above, last = place.split(".")
        table: Any = content
        for each in above:
            table = table[int(each)] if isinstance(table, list) else table.setdefault(each, {})
        table[last] = json.loads(value)
    return Study.model_validate(content)


@dataclass
class Bench:
    """Runs of a study on a service: all of its cells are recalled, and those that are `chosen` are run.

    A cell is chosen where its title has one of these words; all are without words.
    """

    study: Study
    service: Service | None
    runner: Runner
    chosen: Sequence[str] = ()
    threads: int = field(default_factory=threads_available)
    contest: Contest | None = None
    results: Results = field(default_factory=Results)

    def measure(self) -> Results:
        """Return what was found: of what is beside the jobs, of the jobs, and of their artifacts."""
        self.results.planned = bodies = dict(self.study.bodies())
        for title, each in self.study.beside.items():
            names = {value: f"{title}, {value}" if value else title for value in _values(each)}
            figures = self._figures({value: self._beside(names[value], each, value) for value in names}, _brief)
            self.results.beside[title] = figures if each.over else figures.get("", {})
        if self.contest is not None:
            found = self._figures(self.contest.beside, _brief)
            self.results.beside |= {title: found.get(title, {}) for title in self.contest.beside}
        first = {name: body for name, body in bodies.items() if _before(body) is None}
        for some in (first, {name: body for name, body in bodies.items() if name not in first}):
            cells = {name: cell for name, body in some.items() if (cell := self._job(name, body)) is not None}
            self.results.found |= self._figures(cells, _brief)
        if (probe := self.study.probe) is not None:
            jobs = {name: each for name, each in self.results.found.items() if name.fits(probe.cells)}
            probed = self._figures({name: self._probe(probe, name, each) for name, each in jobs.items()}, _brief)
            for name in jobs:
                if name in probed:
                    self.results.found[name] = jobs[name] | {"probe": probed[name]}
                else:
                    del self.results.found[name]
        self.results.failures = self.runner.failures
        return self.results

    def _figures(self, cells: Mapping[Any, Cell], brief: Callable[[Figures], str]) -> dict[Any, Figures]:
        chosen = {
            name: cell
            for name, cell in cells.items()
            if not self.chosen or any(word in cell.title for word in self.chosen)
        }
        found = {} if self.runner.is_fresh and self.runner.runs else kept_figures(cells)
        found |= self.runner.figures(chosen, brief)
        return {name: found[name] for name in cells if name in found}

    @property
    def _served(self) -> Service:
        assert self.service is not None
        return self.service

    @property
    def _inputs(self) -> dict[str, Any]:
        """Return what every function is told: the dense model, the texts by name, and how many threads it has."""
        settings = self._served.settings
        texts = {name: str((settings.datasets_root / f"{name}.jsonl").absolute()) for name in self.study.texts}
        return {
            "model": str((settings.models_root / self.study.model).absolute()),
            "texts": texts,
            "threads": self.threads,
        }

    def _beside(self, title: str, probe: Probe, value: str) -> Cell:
        program, spec = _program(probe), {**probe.spec, **dict.fromkeys(probe.over, value)}
        key = f"beside-{service_key(title, spec, program.code, self._revision, self._inputs)}"
        own = probe.registers
        if own and self.runner.runs and not (self._served.settings.models_root / own).exists():
            forget(key)

        def work() -> Figures:
            with checkpoint_place(key) as place:
                figures = _timed(program, {**spec, **self._inputs, "place": str(place)}, key)
                if own:
                    source = f"{self.study.model}, python -m bench.study"
                    add_model(self._served.home, own, place, source=source, say=print)
                return figures

        return Cell(title, key, work)

    @property
    def _revision(self) -> str:
        return str(self._served.client.model(self.study.model).revision)

    def _job(self, name: Name, body: Mapping[str, Any]) -> Cell | None:
        """Return the cell of a job; None where it goes on from one that is not there, or nobody does it."""
        if self.contest is not None:
            return self.contest.cell(name.title, body)
        asked = {"model": self.study.model, **body}
        if (before := _before(body)) is not None:
            own = {each: figures for each, figures in self.results.found.items() if each.seed == name.seed}
            jobs = {each.without_seed(): figures["job"] for each, figures in own.items()}
            if before not in jobs:
                return None
            asked["model"] = f"job:{jobs[before]}"
        code = engine_program("bench.cell:main").code
        key = f"job-{service_key(dict(body), self.study.model, self._revision, self.study.report, code)}"
        kept = recall(key) if self.runner.runs else None
        if kept is not None and self.study.probe is not None and not self._is_there(kept["job"]):
            forget(key)
        return Cell(name.title, key, partial(run_job, self._served, asked, self.study.report))

    def _is_there(self, job: str) -> bool:
        try:
            return bool(self._served.client.artifacts(job))
        except NotFound:
            return False

    def _probe(self, probe: Probe, name: Name, job: Figures) -> Cell:
        program = _program(probe)
        key = f"probe-{service_key(job, probe.spec, program.code, self.results.beside)}"

        def work() -> Figures:
            with checkpoint_place(key) as place:
                self._served.client.download(job["job"], place)
                told = {"pruned": str(place), "job": job, "beside": self.results.beside}
                return _timed(program, {**probe.spec, **self._inputs, **told}, key)

        return Cell(f"{name.title}: measured", key, work)


def run_job(service: Service, body: Mapping[str, Any], report: Sequence[str]) -> Figures:
    """Run a job to its end and return its figures; raises CellFailed where it is refused or has none.

    A target or gate that was missed is an end too.
    """
    loads, begun = [psutil.getloadavg()[0]], _processor_seconds()
    try:
        ended = service.client.wait(service.client.submit(**body).id)
        if ended.metrics is None:
            ended.raise_for_status()
        whole = service.client.report(ended.id).document() if report else {}
    except SecateurError as error:
        raise CellFailed(str(error)) from error
    assert ended.metrics is not None
    return {
        "job": ended.id,
        "status": ended.status,
        "load": [*loads, psutil.getloadavg()[0]],
        "processor_seconds": _processor_seconds() - begun,
        "metrics": ended.metrics.document(),
        "report": {name: whole.get(name) for name in report},
    }


def _processor_seconds() -> float:
    """Return what the processes of the service have worked, where this process started it, with those that ended."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:4])
    return seconds


def _before(body: Mapping[str, Any]) -> str | None:
    """Return the title of the job whose artifact a job prunes; None where it prunes the study's model."""
    model = str(body.get("model", ""))
    return model.removeprefix(_AFTER) if model.startswith(_AFTER) else None


def _values(probe: Probe) -> Sequence[str]:
    return next(iter(probe.over.values()), [""])


def _program(probe: Probe) -> Program:
    return engine_program(probe.work, sorted((Path(__file__).parent / "probes").glob("*.py")))


def _timed(program: Program, spec: dict[str, Any], key: str) -> Figures:
    done = run_program(program, spec, key)
    return {
        "seconds": done.seconds,
        "processor_seconds": done.processor_seconds,
        "peak_bytes": done.peak_bytes,
        "measured": datetime.now(UTC).date().isoformat(),
        **done.result,
    }


def _brief(figures: Figures) -> str:
    told = ", ".join(f"{name} {figures[name]}" for name in _BRIEFED if name in figures)
    return told or f"{figures.get('seconds', 0):.0f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    study = read_study(given.study, [*given.set, *([f"seeds={given.seeds}"] if given.seeds else [])])
    if given.list:
        print("\n".join([*study.beside, *(name.title for name, _ in study.bodies())]))
        return 0
    runner = Runner.of(given)
    if given.hours:
        runner.deadline = time.monotonic() + 3600 * given.hours
    try:
        if (contest := study.contest) is not None:
            prepared = function_of(contest.work)(contest.spec, [body for _, body in study.bodies()], given.threads)
            results = Bench(study, None, runner, given.only, given.threads, prepared).measure()
        else:
            with sample_service() as service:
                for text in study.texts:
                    add_text(service.home, text)
                if any(body.get("evaluation", {}).get("tasks") for _, body in study.bodies()):
                    add_task_samples(service.settings, print)
                service.client.model(study.model)
                results = Bench(study, service, runner, given.only, given.threads).measure()
    except (MissingData, CellFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except NotFound:
        makers = "`python -m bench.study judge` makes smollm2-rotated, and `… mixture` smollm2-mixture"
        print(f"no model {study.model}: {makers}", file=sys.stderr)
        return 1
    command = f"python -m bench.study {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    facts = f"Written by `{command}`, on {describe_machine()}; {own_release()}.\n\n{study.facts.strip()}"
    if given.set:
        facts += f"\n\nThis run has other values: `{' '.join(given.set)}`."
    if study.contest is not None:
        facts += "\n\n" + "\n".join(f"- {fact}" for fact in prepared.facts)
    show("\n\n".join([facts, page(results, study.goal, study.table)]), study.section, given.write)
    if given.data and study.data is not None:
        merge(given.data, function_of(study.data)(results, given.threads))
    return int(len(results.found) < len(results.planned) or not all(results.beside.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.study", description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=sorted(file.stem for file in STUDIES.glob("*.toml")))
    parser.add_argument("--only", nargs="*", metavar="TEXT", default=[], help="run cells whose title has one of these")
    parser.add_argument("--list", action="store_true", help="print the titles of the cells, and run nothing")
    parser.add_argument("--seeds", type=int, help="draws of calibration text (default: the study's)")
    parser.add_argument(
        "--set", nargs="*", metavar="PLACE=JSON", default=[], help="values of the file, base.evaluation.samples=2"
    )
    parser.add_argument("--threads", type=int, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--hours", type=float, help="after which no cell begins")
    parser.add_argument("--fresh", action="store_true", help="measure again what is kept")
    parser.add_argument("--recall", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    parser.add_argument("--data", type=Path, metavar="FILE", help="put the figures among the measurements of a file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
