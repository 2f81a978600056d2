"""What fits towards the dense model win over SparseGPT, and what they cost: `python -m bench.frontier [--write PAGE]`.

Every cell prunes in a process of its own, and another judges the checkpoint it saved, llm-compressor's as ours:
perplexity on text like that it was calibrated on and on text unlike it, and zero-shot tasks. A cell that was measured
on this machine with this code is not measured again, so that the command goes on where it was ended; Ctrl-C shows what
there is.
"""

import argparse
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cells import CellFailed, own_release
from bench.claims.sources import LanguageFiles, MissingData
from bench.contest import (
    PEER,
    Contender,
    Dense,
    Figures,
    Job,
    Stage,
    contend,
    is_measured,
    judge_dense,
    own_contender,
    peer_contender,
)
from bench.contest_report import MIB
from bench.frontier_measurements import measured
from bench.frontier_plan import REFERENCE, SETTINGS, TARGETS, Cell, Plan
from bench.frontier_report import page
from bench.judging_texts import positive, task_copies, write_texts
from bench.machine import describe_machine, threads_available
from bench.measurements import merge
from bench.page import write_section
from bench.windows import SELF_WINDOWS, SelfText, Windows
from core.engine.architectures.description import inspect_folder
from core.measurements.measurement import MeasuredModel
from core.settings import Settings
from worker.samples.zero_shot import add_task_samples

SECTION = "bench-frontier"


@dataclass
class Bench:
    """Runs the cells of a plan, or recalls what they gave, into `found`. `texts` and `tasks` are what models are judged
    by, `calibration` what windows of `length` tokens are drawn from; a setting without a contender is not run.
    """

    plan: Plan
    model: Path
    calibration: Path
    length: int
    texts: Mapping[str, Path]
    tasks: Mapping[str, Path]
    threads: int
    contenders: Mapping[str, Contender]
    found: dict[Cell, Figures | None] = field(default_factory=dict)
    dense: Dense | None = None
    _stages: dict[tuple[Windows, bool], tuple[Stage, dict[str, str]]] = field(default_factory=dict)

    def recall(self) -> None:
        """Everything that is kept; runs nothing."""
        for cell in self._possible():
            if self.windows(cell).file.exists() and is_measured(*self._asked(cell)):
                self.found[cell] = contend(*self._asked(cell))

    def complete(self) -> None:
        """Run what is missing; a cell that fails is told of and left out."""
        first = Cell(REFERENCE, "50", 0, self.plan.samples)
        self.dense = judge_dense(*self._stage(first, bool(self.tasks)))
        for cell in self._possible():
            if cell not in self.found:
                try:
                    figures = self.found[cell] = contend(*self._asked(cell))
                except CellFailed as failure:
                    print(f"{cell.title}: failed: {failure}", file=sys.stderr, flush=True)
                else:
                    print(f"{cell.title}: {_brief(figures)}", flush=True)

    def is_complete(self) -> bool:
        return all(cell in self.found for cell in self.plan.cells())

    def _possible(self) -> list[Cell]:
        return [cell for cell in self.plan.cells() if cell.setting in self.contenders]

    def windows(self, cell: Cell) -> Windows:
        """What a cell is calibrated on."""
        drawn, generated = SETTINGS[cell.setting].sequences(cell.samples)
        return Windows(self.model, self.calibration, "calibration", drawn, self.length, cell.seed, generated)

    def _asked(self, cell: Cell) -> tuple[Job, Contender, Stage, dict[str, str]]:
        setting, contender = SETTINGS[cell.setting], self.contenders[cell.setting]
        job = TARGETS[cell.target].job(setting.method)
        if setting.draws:
            contender = own_contender(setting.title, {**setting.parameters, "seed": cell.seed})
        return (job, contender, *self._stage(cell, self.plan.is_asked(cell)))

    def _stage(self, cell: Cell, has_tasks: bool) -> tuple[Stage, dict[str, str]]:
        """The ground of a cell with hashes of what is in it, which takes a while and is done once for each."""
        key = (self.windows(cell), has_tasks)
        if key not in self._stages:
            stage = Stage(
                model=self.model,
                calibration=self.windows(cell).written(self.threads),
                texts=self.texts,
                threads=self.threads,
                tasks=self.tasks if has_tasks else {},
                task_limit=self.plan.task_limit if has_tasks else None,
            )
            self._stages[key] = (stage, stage.content())
        return self._stages[key]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does, the process of a cell with it
    compared = [title for title in given.compared if title in given.settings]
    plan = Plan(
        settings=given.settings,
        targets=given.targets,
        seeds=given.seeds,
        samples=given.samples,
        compared=compared,
        sizes=sorted(set(given.calibration_sizes)),
        size_seeds=given.size_seeds,
        task_limit=given.task_limit,
        task_targets=given.task_targets,
    )
    try:
        bench, facts = _prepare(given, plan)
    except (MissingData, CellFailed) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        bench.recall()
        bench.complete()
    except CellFailed as failure:
        print(f"the dense model: {failure}", file=sys.stderr)
    except KeyboardInterrupt:
        print("ended early: the tables show what there is, the rest is run the next time", file=sys.stderr)
    command = f"python -m bench.frontier {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    text = page(bench.found, plan, bench.dense, [*facts, f"`{command}`"])
    print(f"\n{text}", flush=True)
    if given.write:
        write_section(given.write, SECTION, text)
    if given.data and bench.dense is not None:
        described = inspect_folder(bench.model)
        model = MeasuredModel(name=bench.model.name, family=described.family, parameters=described.parameters)
        rows = measured(bench.found, plan, bench.dense, model, length=given.length, threads=given.threads)
        merge(given.data, rows)
    return int(not bench.is_complete())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.frontier", description=__doc__.splitlines()[0])
    usual = [setting.title for setting in SETTINGS.values() if not setting.grid]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=usual, help="rows")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="columns")
    parser.add_argument("--seeds", type=positive, default=3, help="draws of calibration windows (default 3)")
    parser.add_argument("--samples", type=positive, default=32, help="calibration windows (default 32)")
    parser.add_argument("--length", type=positive, default=512, help="tokens of a window (default 512)")
    parser.add_argument(
        "--windows", type=positive, default=16, help="windows of each text that is judged by (default 16)"
    )
    parser.add_argument(
        "--compared",
        nargs="+",
        choices=SETTINGS,
        default=[REFERENCE, "frontier"],
        help="settings of the tables over calibration sizes and tasks, where they are among the rows",
    )
    parser.add_argument(
        "--calibration-sizes", nargs="*", type=positive, default=[8, 32, 128, 512], help="none: no such table"
    )
    parser.add_argument(
        "--size-seeds", type=positive, default=1, help="of the seeds, those that vary the sizes (default 1)"
    )
    parser.add_argument("--task-limit", type=int, default=100, help="questions of each zero-shot task; 0: none asked")
    parser.add_argument(
        "--task-targets",
        nargs="+",
        choices=TARGETS,
        default=["50", "2:4"],
        help="columns whose models are asked the tasks (default 50 2:4)",
    )
    parser.add_argument("--threads", type=positive, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="put the figures among the measurements of a file too"
    )
    return parser


def _prepare(given: argparse.Namespace, plan: Plan) -> tuple[Bench, list[str]]:
    """The bench with everything it reads, and what the page says of that; raises MissingData, CellFailed."""
    settings = Settings()
    files = LanguageFiles.of(settings)
    texts, judged_by = write_texts(files, given.windows, given.length, given.threads)
    tasks: dict[str, Path] = {}
    if plan.asked and plan.compared:
        add_task_samples(settings, print)
        tasks = task_copies(settings)
    model = files.model.absolute()
    contenders, releases = _contenders(plan, given.length)
    bench = Bench(plan, model, files.calibration, given.length, texts, tasks, given.threads, contenders)
    if any(SETTINGS[title].sequences(given.samples)[1] for title in given.settings):
        _, seconds = SelfText(model, given.length).written(given.threads)
        releases.append(
            f"{SELF_WINDOWS} × {given.length} tokens of its own text, written once for all cells in {seconds:.0f} s, "
            "which are in no cell's seconds"
        )
    return bench, [
        f"{describe_machine()}; {given.threads} thread(s).",
        *(f"{release}." for release in releases),
        f"{model.name}, calibrated on {plan.samples} × {given.length} tokens of {files.calibration.stem}, by seed.",
        judged_by,
    ]


def _contenders(plan: Plan, length: int) -> tuple[dict[str, Contender], list[str]]:
    """Who runs each setting, and the releases of what they run; the peer is left out where it cannot be installed."""
    chosen = [SETTINGS[title] for title in plan.settings]
    contenders = {each.title: own_contender(each.title, each.parameters) for each in chosen if not each.is_peer}
    releases = [own_release()]
    theirs = [each.title for each in chosen if each.is_peer]
    if theirs:
        try:
            peer, release = peer_contender(length)
        except subprocess.CalledProcessError as failure:
            print(f"{PEER} is left out, it cannot be installed: {failure}", file=sys.stderr)
        else:
            contenders |= dict.fromkeys(theirs, peer)
            releases.append(release)
    return contenders, releases


def _brief(figures: Figures | None) -> str:
    if figures is None:
        return "not offered"
    perplexities = ", ".join(f"{value:,.2f} {text}" for text, value in figures.perplexity.items())
    return f"{figures.prune_seconds:.1f} s, {figures.peak_bytes / MIB:,.0f} MiB, perplexity {perplexities}"


if __name__ == "__main__":
    sys.exit(main())
