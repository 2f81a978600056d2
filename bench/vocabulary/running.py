"""Runs of the vocabulary's bench: jobs of the service, and what is measured on their artifacts."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from math import exp
from pathlib import Path
from typing import Any, Final

import psutil

from bench.cells import CACHE, Cell, Figures, Program, Runner, engine_program, run
from bench.measurements import spread
from bench.service import DOCUMENTATION, HANDBOOK, Service, service_key
from bench.vocabulary.plan import ALONE, FAMILIES, JUDGED_ALONE, JUDGED_ON, REDUCED, Case
from core.measurements.measurement import MeasuredModel, Measurement
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

_CORE: Final = Path(__file__).parent.parent.parent / "core"
_SOURCES: Final = (
    "engine/recovery/distill",
    "engine/removals/vocabulary",
    "pipeline/stages/vocabulary",
    "pipeline/recipes/vocabulary.py",
    "engine/exporters/gguf",
)
_PARAGRAPHS: Final = 40


@dataclass
class Bench:
    """Bench of jobs of a service: `jobs` are the ids and `found` the figures, by the name of the case.

    `family` is that of the sample model. `reduced` are models that lost tokens alone, `quality` what they lose on a
    text, and `logits` the comparison of logits by text.
    """

    service: Service
    runner: Runner
    threads: int
    family: str
    at_once: int = 1
    jobs: dict[str, str] = field(default_factory=dict)
    found: dict[str, Figures] = field(default_factory=dict)
    reduced: dict[str, Figures] = field(default_factory=dict)
    quality: dict[tuple[str, str], Figures] = field(default_factory=dict)
    logits: dict[str, Figures] = field(default_factory=dict)
    _folders: dict[str, Path] = field(default_factory=dict)

    def measure(self, case: Case, *, runs: bool = True) -> None:
        """Run a case, or recall it alone; one that comes after another that is not there is left out."""
        if case.after is not None and case.after not in self.jobs:
            return
        key = service_key(case.name, dict(case.body), case.after, vocabulary_sources() if case.removes_tokens else "")
        cell = Cell(case.name, f"vocabulary-{key}", lambda: self._run(case.named(self.jobs)))
        runner = self.runner if runs else Runner(runs=False)
        figures = runner.figures({None: cell}, lambda told: f"{told['job']}, {told['seconds']:.0f} s").get(None)
        if figures is not None:
            self.found[case.name], self.jobs[case.name] = figures, figures["job"]

    def reduce(self) -> None:
        """Make the models that lost tokens alone, or recall them."""
        program = engine_program("bench.vocabulary.quality_cell:reduce")
        cells = {}
        for name, tokens in REDUCED.items():
            spec = {"model": self._model, "text": self._text(CALIBRATION), "tokens": tokens, "threads": self.threads}
            key = f"vocabulary-reduced-{service_key(spec, vocabulary_sources())}"
            output = (CACHE / "checkpoints" / key).absolute()
            cells[name] = Cell(name, key, partial(_timed, program, spec | {"output": str(output)}, key))
            if not output.exists():
                (CACHE / "cells" / f"{key}.json").unlink(missing_ok=True)
            self._folders[name] = output
        self.reduced = self.runner.figures(cells, lambda told: f"{told['kept']:,} tokens stay")

    def judge(self, windows: int, length: int) -> None:
        """Measure the models that lost tokens on all texts, or recall what was measured."""
        program = engine_program("bench.vocabulary.quality_cell:measure")
        cells = {}
        for name in self.reduced:
            for text in JUDGED_ALONE:
                size = {"windows": windows, "length": length}
                cells[name, text] = self._compared(program, name, text, size)
        self.quality = self.runner.figures(cells, lambda told: str(told["bits_per_byte"]), at_once=self.at_once)

    def compare_logits(self) -> None:
        """Compare logits on texts in and out of domain."""
        program = engine_program("bench.vocabulary.logits_cell:compare")
        texts = [text for text in (EVALUATION, HANDBOOK) if ALONE in self.reduced]
        cells = {text: self._compared(program, ALONE, text, {"paragraphs": _PARAGRAPHS}) for text in texts}
        self.logits = self.runner.figures(cells, at_once=self.at_once)

    def _compared(self, program: Program, name: str, text: str, size: Figures) -> Cell:
        """Return a cell that holds a model that lost tokens against the dense one on a text."""
        spec = {"model": self._model, "text": self._text(text), **size, "threads": self.threads}
        facts = [name, program.arguments[-1], spec, _digest([Path(self._text(text))]), vocabulary_sources()]
        key = f"vocabulary-compared-{service_key(*facts)}"
        full = spec | {"reduced": str(self._folders[name])}
        return Cell(f"{name} on {text}", key, partial(_timed, program, full, key))

    @property
    def _model(self) -> str:
        return str((self.service.settings.models_root / MODEL).absolute())

    def _text(self, name: str) -> str:
        own = {each: CACHE / f"{file}.jsonl" for each, file in ((HANDBOOK, "handbook"), (DOCUMENTATION, DOCUMENTATION))}
        return str(own.get(name, self.service.settings.datasets_root / f"{name}.jsonl").absolute())

    def _run(self, body: dict[str, Any]) -> Figures:
        client = self.service.client
        loads = [psutil.getloadavg()[0]]
        ended = client.wait(client.submit(**body).id).raise_for_status()
        loads.append(psutil.getloadavg()[0])
        metrics = ended.metrics
        assert metrics is not None and metrics.seconds is not None
        return {
            "job": ended.id,
            "body": body,
            "seconds": metrics.seconds.total,
            "load": loads,
            "parameters": None if metrics.parameters is None else metrics.parameters.document(),
            "bits_per_byte": {
                name: None if each.bits_per_byte is None else each.bits_per_byte.document()
                for name, each in metrics.perplexity.items()
            },
            "exports": [each.document() for each in metrics.exports],
        }


def family_cells(text: Path, folders: Sequence[Path], threads: int) -> dict[str, Cell]:
    """Return the cell of each kind of tokenizer that is trained on a text, and of those of folders."""
    program = engine_program("bench.vocabulary.families_cell:try_family")
    cells = {}
    for name, folder in [*((name, None) for name in FAMILIES), *((str(folder), str(folder)) for folder in folders)]:
        spec = {"family": name, "folder": folder, "text": str(text), "share": 0.5, "drawn": 2000, "threads": threads}
        key = f"vocabulary-family-{service_key(spec, vocabulary_sources())}"
        cells[name] = Cell(name, key, partial(_timed, program, spec, key))
    return cells


def measured(bench: Bench, machine: str, releases: str) -> Iterator[Measurement]:
    """Return the models that lost tokens alone as measurements of a release; of other texts the worst counts."""
    for name, tokens in REDUCED.items():
        ratios = [ratio_of(bench.quality[name, text]) for text in JUDGED_ON if (name, text) in bench.quality]
        if len(ratios) < len(JUDGED_ON):
            continue
        reduced = bench.reduced[name]
        dense, left = reduced["parameters"]
        yield Measurement(
            model=MeasuredModel(name=MODEL, family=bench.family, parameters=dense),
            method="vocabulary",
            pattern="structured",
            parameters={"tokens": tokens or "auto"},
            calibration=CALIBRATION,
            calibration_tokens=reduced["tokens"],
            sparsity=1 - left / dense,
            removed=1 - left / dense,
            perplexity={"in_domain": spread(ratios[:1]), "out_of_domain": spread([max(ratios[1:])])},
            seconds=spread([reduced["seconds"]]),
            processor_seconds=spread([reduced["processor_seconds"]]),
            peak_bytes=reduced["peak_bytes"],
            machine=machine,
            threads=bench.threads,
            measured=date.fromisoformat(reduced["measured"]),
            releases=releases,
        )


def ratio_of(quality: Figures) -> float:
    """Return the perplexity of a model that lost tokens ÷ the dense model's, per token of the dense model."""
    dense, new = (sum(each) for each in quality["losses"])
    return exp((new - dense) / quality["predicted"])


def _timed(program: Program, spec: dict[str, Any], key: str) -> Figures:
    done = run(program, spec, key)
    return {
        **done.result,
        "seconds": done.seconds,
        "processor_seconds": done.processor_seconds,
        "peak_bytes": done.peak_bytes,
        "measured": datetime.now(UTC).date().isoformat(),
    }


def vocabulary_sources() -> str:
    """Return a digest of the code on which figures of jobs that remove tokens depend."""
    places = [_CORE / name for name in _SOURCES]
    return _digest([file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])])


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:20]
