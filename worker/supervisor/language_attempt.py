"""An attempt at a job on a language model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.engine.architectures.heterogeneous import MODELLING_FILE
from core.methods.registry import get_method
from core.pipeline.messages import GenerateSpec, GenerateTextSpec, PruneSpec, RecoverSpec, SensitivitySpec, Spec
from core.pipeline.reports.report import Report
from core.pipeline.results import PruneOutput, RecoveryOutput
from secateur_wire.metrics import Metrics
from secateur_wire.reports import Generation
from worker.supervisor.attempt import Attempt, StageOutput, keep_peak
from worker.supervisor.inputs import JobInputs
from worker.supervisor.recovery_stage import add_recovery, recover_spec
from worker.supervisor.target_stage import search_spec
from worker.supervisor.task_accuracy import TaskAccuracy

_SHARES = {
    "generate_text": (0.0, 0.0),
    "search": (0.0, 0.0),
    "sensitivity": (0.0, 0.99),
    "prune": (0.0, 0.90),
    "measure": (0.90, 0.91),
    "generate": (0.91, 0.92),
    "tasks": (0.92, 0.95),
    "verify": (0.95, 0.98),
    "export": (0.98, 0.99),
}
_SHARES_WITH_RECOVERY = _SHARES | {"prune": (0.0, 0.40), "recover": (0.40, 0.90)}
_OWN_TEXT = 0.25
"""Share of the progress of a job whose model has to write its own text first."""


class LanguageAttempt(Attempt):
    """Attempt on a language model: prune, recover, evaluate on texts and tasks."""

    @property
    def shares(self) -> Mapping[str, tuple[float, float]]:
        shares = _SHARES_WITH_RECOVERY if self._claim.recovery else _SHARES
        if not self._has_written:
            return shares
        rest = 1 - _OWN_TEXT
        behind = {task: (_OWN_TEXT + rest * start, _OWN_TEXT + rest * end) for task, (start, end) in shares.items()}
        return behind | {"generate_text": (0.0, _OWN_TEXT)}

    _has_written = False

    def _task(self, spec: Spec, part: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
        if isinstance(spec, GenerateTextSpec):
            self._has_written = True
        return super()._task(spec, part)

    def _make(self, inputs: JobInputs) -> StageOutput:
        spec = self._prune_spec(inputs)
        questions = [inputs.questions(task) for task in self._claim.tasks]
        training = recover_spec(self._claim, inputs, spec, self._folder / "artifact")
        inputs.end_fetching()
        if get_method(self._claim.recipe.method).measures:
            measuring = SensitivitySpec.model_validate(spec.model_dump(exclude={"task", "baseline"}))
            measured = PruneOutput.model_validate(self._task(measuring))
            return StageOutput(measured.metrics, measured.report, spec.artifact, None, spec.model)
        accuracy = TaskAccuracy(spec, questions, self._settings, inputs.cache, self._log)
        search = search_spec(self._claim, spec, sequence_length=self._timed_length)
        search_result = None if search is None else self._task(search)
        if search_result is not None:
            recipe = spec.recipe.model_copy(update={"sparsity": search_result["sparsity"]})
            spec = spec.model_copy(update={"recipe": recipe})
        pruned = PruneOutput.model_validate(self._task(spec))
        metrics, report, expected = pruned.metrics, pruned.report, pruned.expected
        keep_peak(report, "search", search_result or {})
        if training is not None:
            spec, expected = self._recover(spec, training, metrics, report)
        self._recorder.enter("evaluate")
        metrics.latency = self._latency(
            spec.model,
            spec.artifact_place,
            report,
            sequence_length=self._timed_length,
            needed=search_result is not None,
        )
        self._generate(spec, report)
        accuracy.compare(self._task, spec.artifact_place, metrics, report)
        return StageOutput(metrics, report, spec.artifact, expected, spec.model, search_result, accuracy.keep_pruned)

    def _recover(
        self, spec: PruneSpec, training: RecoverSpec, metrics: Metrics, report: Report
    ) -> tuple[PruneSpec, Path]:
        """Train, and return the spec with the recovered artifact and the file of what it is expected to compute."""
        recovered = RecoveryOutput.model_validate(self._task(training))
        add_recovery(metrics, report, recovered)
        if recovered.peak_memory is not None:
            report.keep_peak("recover", recovered.peak_memory)
        return spec.model_copy(update={"artifact": training.artifact}), recovered.expected

    def _generate(self, spec: PruneSpec, report: Report) -> None:
        """Add the texts that dense and pruned generate for the job's prompts to the report, where it has any."""
        evaluation = self._claim.recipe.evaluation
        prompts = evaluation.prompts
        if not prompts:
            return
        written = self._optional(
            GenerateSpec(
                models={"dense": spec.model.place, "pruned": spec.artifact_place},
                prompts=prompts,
                tokens=evaluation.prompt_tokens,
                device=self._settings.device,
                threads=self._settings.threads,
            ),
            report,
            otherwise="Nothing was generated",
        )
        skipped = [{"prompt": prompt, "dense": None, "pruned": None} for prompt in prompts]
        texts = skipped if written is None else written["generations"]
        report.generations = [Generation.model_validate(each) for each in texts]

    def _verify(self, output: StageOutput, expected: Path) -> None:
        super()._verify(output, expected)
        if output.report.verification is not None and output.report.verification.trust_remote_code:
            output.report.note(
                "Layers differ in shape: from_pretrained needs trust_remote_code=True, which runs this folder's own "
                f"{MODELLING_FILE}."
            )

    def _prune_spec(self, inputs: JobInputs) -> PruneSpec:
        """Fetch model and texts, and return the spec of the prune stage."""
        claim = self._claim
        model = inputs.model(claim.model)
        method = get_method(claim.recipe.method)
        reference = claim.calibration if method.prunes or method.measures else None
        calibration = reference and inputs.text(reference, model, "calibration.dataset")
        generated = claim.generated and reference and inputs.text(claim.generated, model, "calibration.generated")
        evaluation = [inputs.text(text, model, "evaluation.datasets") for text in claim.evaluation]
        self._on_wait()
        return PruneSpec(
            job=claim.job_id,
            attempt=claim.attempt,
            recipe=claim.recipe,
            model=model,
            calibration=calibration,
            generated=generated,
            evaluation=evaluation,
            work=self._folder,
            previous=self._earlier,
            artifact=self._folder / ("pruned" if claim.recovery else "artifact"),
            device=self._settings.device,
            threads=self._settings.threads,
            activation_budget_bytes=self._settings.activation_budget_bytes,
            baseline=claim.baseline,
        )

    @property
    def _timed_length(self) -> int:
        """Return the tokens of the sequence that models are timed on."""
        parts = (self._claim.recipe.calibration, self._claim.recipe.evaluation)
        return next((part.sequence_length for part in parts if part and part.sequence_length), 512)
