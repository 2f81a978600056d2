"""A worker's measurements of the costs of models' parts: a child times small models while the worker has no job."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil
from sqlalchemy.orm import Session, sessionmaker

from core.engine.latency.registry import ENGINES
from core.pipeline.messages import ModelPlace, PartCostsReport, PartCostsTask
from core.service.part_costs import PartCostsQuestion, part_costs_kind
from core.service.questions.queue import ClaimedQuestion, claim
from core.service.sources.header_only_folder import write_header_only_folder
from core.service.sources.references import FolderModel, StoredModel
from core.settings import Settings
from core.storage import Store
from worker.supervisor.question_taker import QuestionTaker
from worker.supervisor.small_files import read_model

_SECONDS: Final = 3600.0
_CLAIM_SECONDS: Final = 600.0
_FILE_BYTES: Final = 64 * 2**30
_ADDRESS_SPACE: Final = 4
"""Address space of the child, in memories of the machine: files are mapped, and not all that is mapped is used."""


class PartCostMeasurer(QuestionTaker[PartCostsQuestion, PartCostsReport]):
    """Thread that measures, once it is started, in the engines that this worker has; `is_idle`: it has no job."""

    kind = part_costs_kind("", "")
    module = "core.pipeline.stages.measure_part_costs"
    seconds = _SECONDS

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        is_idle: Callable[[], bool] = lambda: True,
        command: Sequence[str] | None = None,
    ) -> None:
        super().__init__(store, settings, command=command)
        self._is_idle = is_idle
        self._kinds = [
            part_costs_kind(settings.worker_queue, info.id)
            for info in ENGINES.values()
            if info.runtime is None or info.runtime.is_installed
        ]

    @property
    def memory_bytes(self) -> int:
        return _ADDRESS_SPACE * psutil.virtual_memory().total

    def facts(self, claimed: ClaimedQuestion[PartCostsQuestion]) -> Mapping[str, str]:
        return {"model": claimed.question.model.name, "engine": claimed.question.workload.engine}

    def claim(self, session: Session) -> ClaimedQuestion[PartCostsQuestion] | None:
        if not self._is_idle():
            return None
        claims = (claim(session, kind, lease_seconds=_SECONDS + _CLAIM_SECONDS) for kind in self._kinds)
        return next((each for each in claims if each is not None), None)

    def ask(
        self, sessions: sessionmaker[Session], claimed: ClaimedQuestion[PartCostsQuestion], temporary: Path
    ) -> tuple[PartCostsTask, int]:
        model = claimed.question.model
        folder = temporary
        if isinstance(model, FolderModel):
            folder = model.path
        else:
            read = read_model(sessions, self._store, claimed.team_id, model, self._settings)
            write_header_only_folder(temporary, model.files, read)
        place = ModelPlace(
            path=folder,
            own_artifact=isinstance(model, StoredModel) and model.is_artifact,
            discovered=model.discovered,
        )
        return PartCostsTask(model=place, workload=claimed.question.workload), _FILE_BYTES
