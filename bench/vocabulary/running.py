"""Runs of the vocabulary's bench: jobs of the service, and what is measured on their artifacts."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from bench.cells import CACHE, Cell, Figures, Program, Runner, engine_program, run
from bench.measurements import spread
from bench.service import Service, service_key
from bench.vocabulary.plan import ALONE, FAMILIES, JUDGED_ON, UNUSED, Case
from core.measurements.measurement import MeasuredModel, Measurement
from worker.samples.language import MODEL

_CORE: Final = Path(__file__).parent.parent.parent / "core"
_SOURCES: Final = (
    "engine/removals/vocabulary",
    "pipeline/stages/vocabulary",
    "pipeline/recipes/vocabulary.py",
    "engine/exporters/gguf",
)
_PARAGRAPHS: Final = 200


@dataclass
class Bench:
    """Bench of jobs of a service: `jobs` are the ids and `found` the figures, by the name of the case.

    `family` is that of the sample model.
    """

    service: Service
    runner: Runner
    threads: int
    family: str
    jobs: dict[str, str] = field(default_factory=dict)
    found: dict[str, Figures] = field(default_factory=dict)

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

    def logits(self, text: Path) -> Figures | None:
        """Return what comes of the comparison of logits on a text, with the job that removes tokens alone."""
        job_id = self.jobs.get(ALONE)
        if job_id is None:
            return None
        model = self.service.settings.models_root / MODEL
        spec = {"model": str(model.absolute()), "text": str(text.absolute()), "paragraphs": _PARAGRAPHS}
        spec |= {"job": job_id, "threads": self.threads}
        program = engine_program("bench.vocabulary.logits_cell:compare")
        key = service_key("logits", spec, vocabulary_sources())
        reduced = (CACHE / "checkpoints" / f"vocabulary-{job_id}").absolute()

        def work() -> Figures:
            if not reduced.exists():
                self.service.client.download(job_id, reduced)
            return run(program, spec | {"reduced": str(reduced)}, key).result

        cell = Cell(f"logits on {text.stem}", f"vocabulary-logits-{key}", work)
        return self.runner.figures({None: cell}).get(None)

    def _run(self, body: dict[str, Any]) -> Figures:
        client = self.service.client
        loads = [psutil.getloadavg()[0]]
        ended = client.wait(client.submit(**body).id).raise_for_status()
        loads.append(psutil.getloadavg()[0])
        metrics, report = ended.metrics, client.report(ended.id)
        assert metrics is not None and metrics.seconds is not None
        vocabulary = report.vocabulary
        return {
            "job": ended.id,
            "body": body,
            "seconds": metrics.seconds.total,
            "load": loads,
            "measured": datetime.now(UTC).date().isoformat(),
            "peak_bytes": metrics.peak_memory_bytes,
            "perplexity": {name: each.ratio for name, each in metrics.perplexity.items()},
            "parameters": None if metrics.parameters is None else metrics.parameters.document(),
            "bits_per_byte": {
                name: None if each.bits_per_byte is None else each.bits_per_byte.document()
                for name, each in metrics.perplexity.items()
            },
            "vocabulary": None if vocabulary is None else vocabulary.document(),
            "exports": [each.document() for each in metrics.exports],
        }


def family_cells(text: Path, folders: Sequence[Path], threads: int) -> dict[str, Cell]:
    """Return the cell of each kind of tokenizer that is trained on a text, and of those of folders."""
    program = engine_program("bench.vocabulary.families_cell:try_family")
    cells = {}
    for name, folder in [*((name, None) for name in FAMILIES), *((str(folder), str(folder)) for folder in folders)]:
        spec = {"family": name, "folder": folder, "text": str(text), "share": 0.5, "drawn": 2000, "threads": threads}
        key = f"vocabulary-family-{service_key(spec, vocabulary_sources())}"
        cells[name] = Cell(name, key, partial(_run_cell, program, spec, key))
    return cells


def measured(bench: Bench, machine: str, releases: str, threads: int) -> Iterator[Measurement]:
    """Return the jobs that removed tokens alone as measurements of a release; of other texts the worst counts."""
    for name in (ALONE, UNUSED):
        if (figures := bench.found.get(name)) is None or figures["perplexity"] is None:
            continue
        inside, *outside = (figures["perplexity"][each] for each in JUDGED_ON)
        parameters = figures["parameters"]
        yield Measurement(
            model=MeasuredModel(name=MODEL, family=bench.family, parameters=parameters["dense"]),
            method="vocabulary",
            pattern="structured",
            parameters=figures["body"]["parameters"],
            calibration=figures["body"]["calibration"]["dataset"],
            calibration_tokens=figures["vocabulary"]["tokens"],
            sparsity=1 - parameters["nonzero"] / parameters["dense"],
            perplexity={"in_domain": spread([inside]), "out_of_domain": spread([max(outside)])},
            seconds=spread([figures["seconds"]]),
            processor_seconds=spread([figures["seconds"]]),
            peak_bytes=figures["peak_bytes"],
            machine=machine,
            threads=threads,
            measured=date.fromisoformat(figures["measured"]),
            releases=releases,
        )


def _run_cell(program: Program, spec: dict[str, Any], key: str) -> Figures:
    return run(program, spec, key).result


def vocabulary_sources() -> str:
    """Return a digest of the code on which figures of jobs that remove tokens depend."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        place = _CORE / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:20]
