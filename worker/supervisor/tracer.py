"""A worker's traces of registered image classifiers, for estimates: a child runs them on the meta device.

The child is told a config, the names, dtypes and shapes of tensors, and the size of the images.
"""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from core.engine.architectures.describe import describe_folder
from core.engine.architectures.description import TraceAnswer, TraceQuestion
from core.engine.architectures.folder import read_config, stored_tensors
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.service.questions.queue import ClaimedQuestion
from core.service.registry.traces import CLASSIFIER, ClassifierQuestion, store_trace
from core.service.sources.header_only_folder import write_header_only_folder
from secateur_wire.errors import DiscoveryFailed
from worker.supervisor.question_taker import QuestionTaker
from worker.supervisor.small_files import read_from_store

_HEADER_BYTES = 64 * 2**20
"""Room for the header of a file of weights."""
_NO_REASON = "the child process gave no reason"


class ClassifierTracer(QuestionTaker[ClassifierQuestion, TraceAnswer]):
    """Thread that traces registered image classifiers."""

    kind = CLASSIFIER

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
        return question, _HEADER_BYTES

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


def _shapes(entries: Mapping[str, TensorEntry]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of each tensor by the file's key."""
    return {name: (entry.dtype, entry.shape) for name, entry in entries.items()}
