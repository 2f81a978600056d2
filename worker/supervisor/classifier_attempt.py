"""An attempt at a job on an image classifier."""

from collections.abc import Mapping

from core.methods.registry import get_method
from core.pipeline.messages import ClassifierSpec, ImageSource, ModelPlace
from core.pipeline.results import PruneOutput
from core.service.sources.references import ImageReference
from worker.supervisor.attempt import Attempt, StageOutput
from worker.supervisor.inputs import JobInputs


class ClassifierAttempt(Attempt):
    """Attempt on an image classifier.

    One task of the runner prunes, recovers and evaluates; latency and the reload check are others'.
    """

    @property
    def shares(self) -> Mapping[str, tuple[float, float]]:
        return {
            "classifier": (0.0, 0.90),
            "measure": (0.90, 0.94),
            "verify": (0.94, 0.98),
            "export": (0.98, 0.99),
        }

    def _make(self, inputs: JobInputs) -> StageOutput:
        claim, images = self._claim, self._claim.images
        assert images is not None
        model = inputs.model(claim.model)

        def source(reference: ImageReference | None, param: str) -> ImageSource | None:
            return None if reference is None else inputs.images(reference, param)

        spec = ClassifierSpec(
            job=claim.job_id,
            attempt=claim.attempt,
            recipe=claim.recipe,
            model=model,
            calibration=source(images.calibration, "calibration.dataset"),
            recovery=source(images.recovery, "recovery.dataset"),
            evaluation=[inputs.images(each, "evaluation.datasets") for each in images.evaluation],
            baseline=claim.baseline,
            work=self._folder,
            previous=self._earlier,
            artifact=self._folder / "artifact",
            device=self._settings.device,
            threads=self._settings.threads,
        )
        inputs.end_fetching()
        self._on_wait()
        output = PruneOutput.model_validate(self._task(spec))
        metrics, report = output.metrics, output.report
        if get_method(claim.recipe.method).measures:
            return StageOutput(metrics, report, spec.artifact, None, model)
        self._recorder.enter("evaluate")
        pruned = ModelPlace(path=spec.artifact, own_artifact=True)
        assert report.images is not None
        channels, height, width = report.images.shape
        metrics.latency = self._latency(model, pruned, report, image_shape=(channels, height, width))
        return StageOutput(metrics, report, spec.artifact, output.expected, model)
