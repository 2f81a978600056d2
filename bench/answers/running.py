"""Runs of the bench of answers: jobs of the service, and what their artifacts answer."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.answers.plan import Case
from bench.answers.prompts import draw_prompts
from bench.cells import CACHE, Cell, Figures, Runner, engine_program, forget, recall, recalled, run
from bench.service import Service, service_key
from secateur_wire.errors import NotFound
from worker.samples.language import MODEL


@dataclass(frozen=True)
class Size:
    """Size of the bench: calibration `samples` of `length` tokens, `windows` of as many to measure bits per byte on,
    `prompts` answered in at most `tokens` tokens, and the `steps` of a distillation.
    """

    samples: int
    length: int
    windows: int
    prompts: int
    tokens: int
    steps: int

    @property
    def asked(self) -> dict[str, Any]:
        """Return what models are asked."""
        return {"prompts": draw_prompts(self.prompts), "tokens": self.tokens}


@dataclass
class Bench:
    """Bench of jobs of a service: `dense` are the dense model's answers, `jobs` and `found` figures by case.

    All of `planned` are recalled, and those that are `chosen` are run where they are missing. `blocks` is the blocks'
    share of the dense model's parameters.
    """

    service: Service
    runner: Runner
    threads: int
    size: Size
    blocks: float
    planned: Sequence[Case] = ()
    chosen: Collection[Case] = ()
    dense: Figures = field(default_factory=dict)
    jobs: dict[Case, Figures] = field(default_factory=dict)
    found: dict[Case, Figures] = field(default_factory=dict)

    @property
    def missing(self) -> list[Case]:
        """Return the planned cases of which there are no figures."""
        return [case for case in self.planned if case not in self.found]

    def prune(self) -> None:
        """Recall the jobs of cases, and run what is missing of those that are chosen."""
        cells = {case: self._job_cell(case) for case in self.planned}
        self.jobs = self._figures(cells, lambda told: f"{told['job']}, {told['seconds']:.0f} s")

    def _figures(self, cells: Mapping[Case, Cell], brief: Callable[[Figures], str]) -> dict[Case, Figures]:
        chosen = {case: cell for case, cell in cells.items() if case in self.chosen}
        return recalled(cells) | self.runner.figures(chosen, brief)

    def judge(self) -> None:
        """Recall what the artifacts of the jobs answer, and ask those that were not asked."""
        asked = self.size.asked
        program = engine_program("bench.answers.judge_cell:answer")
        key = f"answers-dense-{service_key(asked, program.code)}"
        spec = {**asked, "model": self._model, "template": self._model, "threads": self.threads}
        cell = Cell("the dense model's answers", key, lambda: run(program, spec, key).result)
        dense = self.runner.figures({None: cell}, lambda told: f"{len(told['answers'])} answers")
        if dense:
            self.dense = dense[None]
            cells = {case: self._judge_cell(job, case, asked) for case, job in self.jobs.items()}
            self.found = self._figures(cells, lambda told: f"KL {total_kl(told):.4f}")

    def _job_cell(self, case: Case) -> Cell:
        size = self.size
        body = case.body(self.blocks, size.samples, size.length, size.windows, size.steps)
        key = f"answers-job-{service_key(body)}"
        kept = recall(key) if case in self.chosen else None
        if kept is not None and not self._is_there(kept["job"]):
            forget(key)
        return Cell(case.title, key, lambda: self._job(body))

    def _is_there(self, job: str) -> bool:
        try:
            return bool(self.service.client.artifacts(job))
        except NotFound:
            return False

    def _judge_cell(self, job: Figures, case: Case, asked: dict[str, Any]) -> Cell:
        program = engine_program("bench.answers.judge_cell:compare")
        key = f"answers-{service_key(job['body'], asked, program.code)}"

        def work() -> Figures:
            place = (CACHE / "checkpoints" / key).absolute()
            shutil.rmtree(place, ignore_errors=True)
            try:
                self.service.client.download(job["job"], place)
                dense_answers = self.dense["answers"]
                models = {"model": self._model, "template": self._model, "pruned": str(place)}
                spec = {**asked, **models, "dense_answers": dense_answers, "threads": self.threads}
                return run(program, spec, key).result
            finally:
                shutil.rmtree(place, ignore_errors=True)

        return Cell(f"{case.title}: answers", key, work)

    def _job(self, body: dict[str, Any]) -> Figures:
        client = self.service.client
        ended = client.wait(client.submit(model=MODEL, **body).id).raise_for_status()
        metrics = ended.metrics
        assert metrics is not None and metrics.seconds is not None
        ((_, perplexity),) = metrics.perplexity.items()
        assert perplexity.bits_per_byte is not None
        return {
            "job": ended.id,
            "body": body,
            "seconds": metrics.seconds.total,
            "perplexity": perplexity.ratio,
            "bits_per_byte": perplexity.bits_per_byte.document(),
        }

    @property
    def _model(self) -> str:
        return str((self.service.settings.models_root / MODEL).absolute())


def total_kl(figures: Figures) -> float:
    """Return KL(dense‖pruned) in nats a token along the dense model's answers."""
    return float(sum(figures["divergences"]) / sum(figures["predictions"]))
