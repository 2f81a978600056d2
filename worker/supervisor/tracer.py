"""A worker's traces: a child runs the engine without values, for estimates.

The child is told a config, and the names, dtypes and shapes of tensors. Of image classifiers that were registered it
traces passes over images of a size, of language models the pass of one job.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from core.engine.architectures.classifier_passes import TraceAnswer, TraceQuestion
from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import read_config, stored_tensors, weight_files
from core.engine.checkpoints.safetensors_header import TensorEntry, dtype_bytes, read_header
from core.pipeline.messages import PassAnswer, PassQuestion
from core.service.jobs.pass_traces import PASS, PassTraceQuestion
from core.service.questions.queue import ClaimedQuestion
from core.service.registry.traces import CLASSIFIER, ClassifierQuestion, store_trace
from core.service.sources.header_only_folder import write_header_only_folder
from core.service.sources.references import FolderModel, StoredModel
from secateur_wire.errors import DiscoveryFailed
from worker.supervisor.question_taker import QuestionTaker
from worker.supervisor.small_files import read_from_store, read_model

_HEADER_BYTES = 64 * 2**20
"""Room for the header of a file of weights."""
_NO_REASON = "the child process gave no reason"


class ClassifierTracer(QuestionTaker[ClassifierQuestion, TraceAnswer]):
    """Thread that traces registered image classifiers."""

    kind = CLASSIFIER
    module = "core.pipeline.stages.trace"

    @property
    def seconds(self) -> float:
        return self._settings.discovery_seconds

    def facts(self, claimed: ClaimedQuestion[ClassifierQuestion]) -> Mapping[str, str]:
        return {"model": claimed.question.name}

    def ask(
        self, sessions: sessionmaker[Session], claimed: ClaimedQuestion[ClassifierQuestion], temporary: Path
    ) -> tuple[TraceQuestion, int]:
        from core.engine.datasets.preprocessing import image_shape_of  # loads NumPy and Pillow

        folder = self._folder(claimed.question, temporary)
        description = describe_folder(folder).classifier
        config = read_config(folder)
        question = TraceQuestion(
            config=config,
            tensors=_shapes(stored_tensors(folder, None)),
            image_shape=image_shape_of(folder, config, description.image),
        )
        return question, _file_bytes(question)

    def check(self, answer: TraceAnswer) -> None:
        if answer.passes is None:
            raise DiscoveryFailed(answer.error or _NO_REASON)

    def store(self, session: Session, claimed: ClaimedQuestion[ClassifierQuestion], answer: TraceAnswer) -> None:
        assert answer.passes is not None
        store_trace(session, claimed.id, answer.passes)

    def _folder(self, classifier: ClassifierQuestion, temporary: Path) -> Path:
        """Return a folder with the model's config, headers and preprocessing."""
        if classifier.path is not None:
            return Path(classifier.path)
        assert classifier.prefix is not None
        write_header_only_folder(temporary, classifier.files, read_from_store(self._store, classifier.prefix))
        return temporary


class PassTracer(QuestionTaker[PassTraceQuestion, PassAnswer]):
    """Thread that traces passes over language models."""

    kind = PASS
    module = "core.pipeline.stages.trace"

    def facts(self, claimed: ClaimedQuestion[PassTraceQuestion]) -> Mapping[str, str]:
        return {"model": claimed.question.model.name, "method": claimed.question.traced.method}

    def ask(
        self, sessions: sessionmaker[Session], claimed: ClaimedQuestion[PassTraceQuestion], temporary: Path
    ) -> tuple[PassQuestion, int]:
        model = claimed.question.model
        folder = self._folder(sessions, claimed, temporary)
        is_artifact = isinstance(model, StoredModel) and model.is_artifact
        entries: dict[str, Any] = {}
        for file in weight_files(folder):
            entries |= read_header(file)
        question = PassQuestion(
            config=read_config(folder, own_artifact=is_artifact, discovered=model.discovered),
            tensors=_shapes(entries),
            own_artifact=is_artifact,
            discovered=model.discovered,
            traced=claimed.question.traced,
        )
        return question, _file_bytes(question)

    def check(self, answer: PassAnswer) -> None:
        if answer.peak_bytes is None:
            raise DiscoveryFailed(answer.error or _NO_REASON)

    def _folder(
        self, sessions: sessionmaker[Session], claimed: ClaimedQuestion[PassTraceQuestion], temporary: Path
    ) -> Path:
        """Return a folder with the model's config and headers; raises what the store and the hub do."""
        model = claimed.question.model
        if isinstance(model, FolderModel):
            return model.path
        read = read_model(sessions, self._store, claimed.team_id, model, self._settings)
        write_header_only_folder(temporary, model.files, read)
        return temporary


def _shapes(entries: Mapping[str, TensorEntry]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of each tensor by the file's key."""
    return {name: (entry.dtype, entry.shape) for name, entry in entries.items()}


def _file_bytes(question: TraceQuestion | PassQuestion) -> int:
    """Return the bytes of files that a child may write: it makes a file of the model's size, without content."""
    return _HEADER_BYTES + sum(dtype_bytes(dtype, shape) for dtype, shape in question.tensors.values())
