"""Runs of the vocabulary's bench: jobs of the service, and what is measured on their artifacts."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from bench.cells import CACHE, Cell, Figures, Runner, engine_program, run
from bench.service import Service, service_key
from bench.vocabulary.plan import ALONE, Case
from secateur.errors import NotFound

_CORE: Final = Path(__file__).parent.parent.parent / "core"
_SOURCES: Final = (
    "engine/removals/vocabulary",
    "engine/datasets",
    "pipeline/stages/vocabulary",
    "pipeline/recipes/vocabulary.py",
    "engine/exporters/gguf",
)
_PARAGRAPHS: Final = 200


@dataclass
class Bench:
    """Bench of jobs of a service: `jobs` are the ids and `found` the figures, by the name of the case."""

    service: Service
    runner: Runner
    threads: int
    jobs: dict[str, str] = field(default_factory=dict)
    found: dict[str, Figures] = field(default_factory=dict)

    def measure(self, case: Case) -> None:
        """Run a case, or recall it; one that comes after another that is not there is left out."""
        if case.after is not None and case.after not in self.jobs:
            return
        key = service_key(case.name, dict(case.body), case.after, vocabulary_sources() if case.removes_tokens else "")
        cell = Cell(case.name, f"vocabulary-{key}", lambda: self._run(case.named(self.jobs)))
        figures = self.runner.figures({None: cell}, lambda told: f"{told['job']}, {told['seconds']:.0f} s").get(None)
        if figures is not None:
            self.found[case.name], self.jobs[case.name] = figures, figures["job"]

    def logits(self, text: Path) -> Figures | None:
        """Return what comes of the comparison of logits on a text, with the job that removes tokens alone."""
        job_id = self.jobs.get(ALONE)
        if job_id is None:
            return None
        model = self.service.settings.models_root / self.found[ALONE]["body"]["model"]
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
            "parameters": None if metrics.parameters is None else metrics.parameters.document(),
            "bits_per_byte": {
                name: None if each.bits_per_byte is None else each.bits_per_byte.document()
                for name, each in metrics.perplexity.items()
            },
            "vocabulary": None if vocabulary is None else vocabulary.document(),
            "exports": [each.document() for each in metrics.exports],
        }


def is_there(service: Service, job_id: str) -> bool:
    """Return whether the artifact of a job is still there."""
    try:
        return bool(service.client.artifacts(job_id))
    except NotFound:
        return False


def vocabulary_sources() -> str:
    """Return a digest of the code on which figures of jobs that remove tokens depend."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        place = _CORE / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:20]
