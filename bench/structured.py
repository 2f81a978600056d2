"""Every structured method, as jobs of the service: `python -m bench.structured [--write docs/structured.md]`.

Each cell is a job body. It prunes, or trains what an earlier cell pruned (`recover`), and measures perplexity on text
that was not used for calibration, the seven zero-shot tasks, parameters and latency. Figures are cached by the hash of
the bodies and of the releases, so that the command goes on where it was ended.
"""

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.cells import own_release, recall, remember
from bench.machine import describe_machine
from bench.page import table, write_section
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.options.base import BudgetOptions
from core.engine.options.patterns import STRUCTURED
from core.methods.method_info import MethodInfo
from core.methods.registry import METHODS
from core.settings import Settings
from secateur import Client, Job
from secateur.errors import SecateurError
from worker.cli.demo import serving
from worker.embedded.instance import open_instance
from worker.samples.language import CALIBRATION, EVALUATION, MODEL, add_samples
from worker.samples.zero_shot import add_task_samples

SECTION = "bench-structured"
SPARSITIES = (0.2, 0.5)


@dataclass(frozen=True)
class Entry:
    """A method, and what its jobs say of the layout."""

    title: str
    method: MethodInfo
    output: dict[str, str]


def entries() -> list[Entry]:
    """Every structured method with all layers of one shape; LLM-Pruner also as in its paper, with protected layers."""
    methods = (each for each in METHODS.values() if "language-model" in each.task_families)
    found = [Entry(each.id, each, {}) for each in methods if STRUCTURED.family in each.patterns]
    place = next(number for number, each in enumerate(found) if each.title == "llm-pruner")
    found.insert(place + 1, Entry("llm-pruner per_layer", found[place].method, {"layout": "per_layer"}))
    return found


@dataclass(frozen=True)
class Scale:
    """How much is measured and trained. Lengths in tokens."""

    task_limit: int
    windows: int
    steps: int
    batch_size: int
    training_length: int

    def pruning(self, entry: Entry, sparsity: float) -> dict[str, Any]:
        """The body of the job that prunes."""
        is_budgeted = issubclass(entry.method.variant(STRUCTURED.text).parameters, BudgetOptions)
        is_default = entry.method.patterns[0] == STRUCTURED.family
        return {
            "model": MODEL,
            "method": entry.method.id,
            **({} if is_default else {"pattern": STRUCTURED.text}),
            "output": entry.output,
            "sparsity": sparsity,
            "parameters": {"budget": "quick"} if is_budgeted else {},
            "calibration": {"dataset": CALIBRATION, "samples": 64, "sequence_length": 128, "seed": 0},
            "evaluation": self._evaluation(),
        }

    def recovery(self, pruned: str) -> dict[str, Any]:
        """The body of the job that trains what `pruned` left."""
        return {
            "model": pruned,
            "method": "recover",
            "recovery": {
                "method": "lora",
                "dataset": CALIBRATION,
                "steps": self.steps,
                "batch_size": self.batch_size,
                "sequence_length": self.training_length,
                "learning_rate": 5e-4,
            },
            "evaluation": self._evaluation(),
        }

    def _evaluation(self) -> dict[str, Any]:
        return {
            "datasets": [EVALUATION],
            "samples": self.windows,
            "sequence_length": 512,
            "tasks": list(TASKS),
            "task_limit": self.task_limit,
        }


@dataclass(frozen=True, eq=False)
class Cell:
    """One job: what to call it, its body, and the cell whose artifact it starts from."""

    title: str
    sparsity: float
    is_recovered: bool
    body: dict[str, Any]
    after: "Cell | None" = None

    @property
    def key(self) -> str:
        """The hash of its body and of the one it starts from, of releases and machine."""
        facts = [self.body, self.after and self.after.body, own_release(), describe_machine()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def cells(contest: Sequence[Entry], scale: Scale) -> Iterator[Cell]:
    """At each sparsity all that prune, then all that train what those left."""
    for sparsity in SPARSITIES:
        before = [Cell(each.title, sparsity, False, scale.pruning(each, sparsity)) for each in contest]
        yield from before
        for cell in before:
            yield Cell(cell.title, cell.sparsity, True, scale.recovery("job:…"), cell)


class Bench:
    """Runs cells at a server, or recalls what they gave."""

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self._client = client
        self._say = say

    def figures(self, cell: Cell) -> dict[str, Any] | None:
        """None where the job failed; `say` hears why."""
        known = recall(cell.key)
        if known is not None:
            return known
        body = dict(cell.body)
        if cell.after is not None:
            before = self._artifact(cell.after)
            if before is None:
                return None
            body["model"] = f"job:{before}"
        job = self._run(body)
        title = f"{cell.title} {cell.sparsity:.0%}{', recovered' if cell.is_recovered else ''}"
        if job.status != "succeeded" or job.metrics is None:
            self._say(f"{title}: {job.status}: {job.error.message if job.error else 'no figures'}")
            return None
        figures = {"job": job.id, **job.metrics.model_dump(mode="json")}
        remember(cell.key, figures)
        self._say("  ".join(_row(cell, figures)))
        return figures

    def _artifact(self, cell: Cell) -> str | None:
        """The job whose artifact a cell left; it runs again where this server does not have it."""
        figures = self.figures(cell)
        if figures is None:
            return None
        try:
            if self._client.artifacts(figures["job"]):
                return str(figures["job"])
        except SecateurError:
            pass
        self._say(f"{cell.title} {cell.sparsity:.0%} is pruned again: its artifact is not here any more")
        job = self._run(cell.body)
        if job.status != "succeeded":
            return None
        remember(cell.key, figures | {"job": job.id})
        return job.id

    def _run(self, body: dict[str, Any]) -> Job:
        return self._client.wait(self._client.submit(**body).id)


def page(found: Mapping[Cell, dict[str, Any] | None], scale: Scale, command: str) -> str:
    """The table, its first row the dense model's, and what its columns mean."""
    dense = next((figures for cell, figures in found.items() if figures and not cell.is_recovered), None)
    rows = [] if dense is None else [_dense_row(dense)]
    places = [each.title for each in entries()]
    order = sorted(found, key=lambda cell: (cell.sparsity, places.index(cell.title), cell.is_recovered))
    rows += [_row(cell, found[cell]) for cell in order]
    header = ("method", "removed, training", "perplexity", f"{len(TASKS)}-task mean", "parameters", "prefill", "decode")
    return f"""{table((*header, "seconds", "peak MiB"), rows)}

{describe_machine()}; {own_release()}. `{command}`

Perplexity on {scale.windows} windows of 512 tokens of {EVALUATION}, none of them used for calibration (64 × 128 tokens
of {CALIBRATION}). Task mean over the first {scale.task_limit} questions of each task, with its standard error. Methods
with a `budget` ran with `quick`. Recovery: LoRA, {scale.steps} steps of {scale.batch_size} sequences of
{scale.training_length} tokens. Prefill (512 tokens) and decoding are against the dense model in the same run; a model
that recovered has the shape of the pruned one. Seconds and peak memory are of the stage that prunes, or that trains."""


def _dense_row(figures: dict[str, Any]) -> tuple[str, ...]:
    perplexity = figures["perplexity"][EVALUATION]["dense"]
    parameters = f"{figures['parameters']['dense'] / 1e6:.1f} M"
    return ("dense", "", f"{perplexity:.2f}", _mean(figures, "dense"), parameters, "1", "1", "", "")


def _row(cell: Cell, figures: dict[str, Any] | None) -> tuple[str, ...]:
    where = (cell.title, f"{cell.sparsity:.0%}{', recovered' if cell.is_recovered else ''}")
    if figures is None:
        return (*where, *["failed"] * 7)
    latency = figures.get("latency")
    speed = ["", ""]
    if latency and not cell.is_recovered:
        speed = [
            f"{latency['pruned_ms'] / latency['dense_ms']:.2f} ×",
            f"{latency['decode_pruned_ms'] / latency['decode_dense_ms']:.2f} ×",
        ]
    return (
        *where,
        f"{figures['perplexity'][EVALUATION]['pruned']:.2f}",
        _mean(figures, "pruned"),
        f"{figures['parameters']['nonzero'] / 1e6:.1f} M",
        *speed,
        f"{figures['seconds']['recover' if cell.is_recovered else 'prune']:.0f}",
        f"{figures['peak_memory_bytes'] / 2**20:,.0f}",
    )


def _mean(figures: dict[str, Any], model: str) -> str:
    """With the standard error of a mean of independent means; empty where no task was asked."""
    if not figures["tasks"]:
        return ""
    errors = [task[f"{model}_stderr"] for task in figures["tasks"].values()]
    error = sum(each**2 for each in errors) ** 0.5 / len(errors)
    return f"{figures['task_mean'][model]:.1%} ± {error:.1%}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.structured", description=__doc__)
    parser.add_argument("--task-limit", type=int, default=5, help="questions of each task")
    parser.add_argument("--windows", type=int, default=8, help="windows of 512 tokens whose perplexity is measured")
    parser.add_argument("--steps", type=int, default=24, help="of recovery")
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--write", metavar="PAGE", help="replace the page's section too")
    options = parser.parse_args(arguments)
    scale = Scale(options.task_limit, options.windows, options.steps, batch_size=4, training_length=64)
    chosen = [each for each in entries() if not options.methods or each.method.id in options.methods]
    console = Console(highlight=False, soft_wrap=True)
    settings = Settings()
    found: dict[Cell, dict[str, Any] | None] = {}
    with serving(settings) as url:
        with open_instance(settings) as home:
            add_samples(home, console.print)
        add_task_samples(settings, console.print)
        with Client(url, (settings.home / "api-key").read_text().strip()) as client:
            bench = Bench(client, console.print)
            with contextlib.suppress(KeyboardInterrupt):  # what there is, is shown; the rest is run the next time
                for cell in cells(chosen, scale):
                    found[cell] = bench.figures(cell)
    command = " ".join(["python -m bench.structured", *(arguments if arguments is not None else sys.argv[1:])])
    text = page(found, scale, command)
    console.print(text, markup=False)
    if options.write:
        write_section(Path(options.write), SECTION, text)
    return int(any(figures is None for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())
