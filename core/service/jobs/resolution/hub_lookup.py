"""Look-ups of a request's hub names, made before its transaction: no database connection waits for a network.

Errors are stored, and raised when the request is checked. So a request is refused for the first fault in order, and an
earlier answer can be replayed while the hub is unavailable.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TypeVar

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.evaluation.zero_shot_tasks import TASKS, local_copy
from core.engine.recovery.request import stage_texts
from core.methods.registry import parse_parameters
from core.service.jobs.schemas import InspectBody, JobBody
from core.service.registry.check_slots import CheckSlots
from core.service.registry.tables import DatasetRow
from core.service.sources.hub import Hub
from core.service.sources.hub_access import open_access
from core.service.sources.hub_datasets import HubDataset, find_hub_dataset, is_hub_dataset, questions_unavailable
from core.service.sources.hub_models import HubRevision, describe_hub_model
from core.service.sources.hub_names import is_commit, split_reference
from core.service.sources.hub_outage import HubOutage
from core.service.sources.hub_revisions import PUBLIC, find_revision, remember_revision
from core.service.sources.hub_tokens import find_access
from core.service.sources.references import Use
from core.settings import Settings
from secateur_wire.errors import (
    CorruptSafetensors,
    GatedModel,
    HubUnavailable,
    InvalidParameters,
    MissingTensors,
    ModelTooLarge,
    PathEscapes,
    PickleCheckpoint,
    SecateurError,
    UnknownMethod,
    UnsafeConfig,
    UnsupportedArchitecture,
    UnusableDataset,
    UnusableModel,
)

JOB_PREFIX = "job:"
_AT_ONCE = 8
_MOST_BEGUN = 24
"""Maximum number of look-ups that run or wait, each in a thread of its caller."""
_WAIT_SECONDS = 5.0

HUB_ERRORS = (
    CorruptSafetensors,
    GatedModel,
    HubUnavailable,
    MissingTensors,
    ModelTooLarge,
    PathEscapes,
    PickleCheckpoint,
    UnsafeConfig,
    UnsupportedArchitecture,
    UnusableDataset,
    UnusableModel,
)
"""Errors that a look-up may store, besides errors about unknown names."""

Result = TypeVar("Result")
OpenHub = Callable[[], Hub]
"""Function that returns the hub with a team's token. Raises GatedModel where the token cannot be opened."""


@dataclass(frozen=True)
class HubFindings:
    """Results or errors of look-ups on the hub, by name as in the request."""

    models: dict[str, HubRevision | SecateurError] = field(default_factory=dict)
    datasets: dict[tuple[str, Use], HubDataset | SecateurError] = field(default_factory=dict)
    tasks: dict[str, HubDataset | SecateurError] = field(default_factory=dict)

    def model(self, reference: str) -> HubRevision:
        """Return the model's revision, or raise the error of its look-up."""
        return _result_of(self.models.get(reference), reference, "model")

    def dataset(self, name: str, use: Use, param: str) -> HubDataset:
        """Return the dataset, or raise the error of its look-up."""
        return _result_of(self.datasets.get((name, use)), name, param)

    def task(self, name: str, param: str) -> HubDataset | None:
        """Return the dataset of a task's questions, None where none was looked up; raises the error of its look-up."""
        if name not in self.tasks:
            return None
        try:
            return _result_of(self.tasks[name], name, param)
        except HubUnavailable as error:
            raise questions_unavailable(name, error, param) from error


def _result_of(answer: Result | SecateurError | None, name: str, param: str) -> Result:
    if answer is None:  # It was registered at the time of the look-up, and has been removed since.
        raise HubUnavailable(f"the hub could not be asked for {name!r}: try again", param=param)
    if isinstance(answer, SecateurError):
        answer.param = param
        raise answer
    return answer


class HubLookup:
    """Look-up of names on the hub, shared by all requests of a process.

    It uses the token of the requesting team. Tasks with a local copy are not looked up. Children that read a model take
    `check_slots`, by default ones of its own.
    """

    def __init__(
        self, settings: Settings, sessions: sessionmaker[Session], check_slots: CheckSlots | None = None
    ) -> None:
        self._check_slots = check_slots or CheckSlots(settings.check_memory_bytes)
        self._settings = settings
        self._hub = Hub(settings, HubOutage())
        self._sessions = sessions
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._begun = threading.BoundedSemaphore(_MOST_BEGUN)

    def of(self, team_id: str, body: JobBody | InspectBody) -> HubFindings:
        """Look up all hub names in a body; for an invalid job body, only its model. Raises no hub errors."""
        findings = HubFindings()
        named = _named_on_hub(body, self._settings)

        @cache
        def hub() -> Hub:
            return self._hub_of(team_id)

        for reference in named.models:
            findings.models[reference] = self._try(partial(self._model, team_id, hub, reference))
        registered = self._registered(team_id, {name for name, _ in named.datasets}) if named.datasets else set()
        for (name, use), param in named.datasets.items():
            if name not in registered:
                findings.datasets[name, use] = self._try(partial(_dataset, hub, name, use, param))
        self._find_tasks(findings, hub, named.tasks)
        return findings

    def asks(self, body: JobBody | InspectBody) -> bool:
        """Return whether a body has names to look up on the hub; a registered text hides a hub dataset."""
        named = _named_on_hub(body, self._settings)
        return bool(named.models or named.datasets or named.tasks)

    def _hub_of(self, team_id: str) -> Hub:
        with transaction(self._sessions) as session:
            access = find_access(session, team_id, self._settings)
        return self._hub.with_credential(open_access(access, self._settings))

    def _find_tasks(self, findings: HubFindings, hub: OpenHub, tasks: Mapping[str, tuple[str, str]]) -> None:
        """Look up the datasets of tasks; after a failed connection the remaining tasks are skipped."""
        away: HubUnavailable | None = None
        for name, (dataset, param) in tasks.items():
            if away is None:
                result = self._try(partial(_dataset, hub, dataset, "evaluation", param))
                away = result if isinstance(result, HubUnavailable) else None
            findings.tasks[name] = away or result

    def _try(self, ask: Callable[[], Result]) -> Result | SecateurError:
        try:
            with self._place():
                return ask()
        except SecateurError as error:
            return error

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold one of the few places for look-ups, so that a slow hub cannot take every thread of this process."""
        with _acquired(self._begun, 0.0), _acquired(self._places, _WAIT_SECONDS):
            yield

    def _registered(self, team_id: str, names: set[str]) -> set[str]:
        with transaction(self._sessions) as session:
            query = select(DatasetRow.name).where(DatasetRow.team_id == team_id, DatasetRow.name.in_(names))
            return set(session.scalars(query))

    def _model(self, team_id: str, hub: OpenHub, reference: str) -> HubRevision:
        """Return a model's revision; from memory only if the hub, asked again, lets this team read the model.

        While the hub is unavailable, a remembered commit is used if it was public.
        """
        repository, revision = split_reference(reference, "model", "model")
        try:
            listing = hub().listing("model", repository, revision)
        except HubUnavailable:
            known = self._known(PUBLIC, repository, revision) if revision and is_commit(revision) else None
            if known is None:
                raise
            return known
        reader = PUBLIC if listing.is_public else team_id
        known = self._known(reader, repository, listing.commit)
        if known is not None:
            return replace(known, licence=listing.licence)
        slot = partial(self._check_slots.slot, team_id)
        described = describe_hub_model(hub(), repository, listing, max_bytes=self._settings.hub_max_bytes, slot=slot)
        with transaction(self._sessions) as session:
            remember_revision(session, reader, described, team_id)
        return described

    def _known(self, reader: str, repository: str, commit: str) -> HubRevision | None:
        with transaction(self._sessions) as session:
            return find_revision(session, reader, repository, commit)


@contextmanager
def _acquired(places: threading.Semaphore, wait_seconds: float) -> Iterator[None]:
    """Hold one of the places; raises HubUnavailable where none becomes free in time."""
    if not places.acquire(timeout=wait_seconds):
        raise HubUnavailable("the hub is slow, and other requests are waiting for it: try again later")
    try:
        yield
    finally:
        places.release()


@dataclass(frozen=True)
class _NamedOnHub:
    """Names in a body to look up on the hub: models, datasets with their uses and fields, tasks.

    A task has the name of its dataset and the field that names it. Tasks with a local copy are left out.
    """

    models: tuple[str, ...]
    datasets: Mapping[tuple[str, Use], str]
    tasks: Mapping[str, tuple[str, str]]


def _named_on_hub(body: JobBody | InspectBody, settings: Settings) -> _NamedOnHub:
    """Return all hub names in a body; for an invalid job body, only its model."""
    models, datasets, tasks = [body.model], dict[tuple[str, Use], str](), dict[str, tuple[str, str]]()
    try:
        job = body if isinstance(body, JobBody) else JobBody.model_validate(body.model_dump())
    except ValidationError:
        job = None
    if job is not None:
        if job.calibration is not None:
            datasets[job.calibration.dataset, "calibration"] = "calibration.dataset"
        for index, name in enumerate(job.evaluation.datasets):
            datasets.setdefault((name, "evaluation"), f"evaluation.datasets.{index}")
        if job.evaluation.answers is not None:
            for index, name in enumerate(job.evaluation.answers.datasets):
                datasets.setdefault((name, "evaluation"), f"evaluation.answers.datasets.{index}")
        if job.recovery is not None:
            models += [job.recovery.teacher] if job.recovery.teacher is not None else []
            texts = [(name, param) for name, param, _ in stage_texts(job.recovery)]
            if job.recovery.dataset is not None:
                texts.insert(0, (job.recovery.dataset, "recovery.dataset"))
            for name, param in texts:
                datasets.setdefault((name, "calibration"), param)
        part, names = _vocabulary_texts(job)
        for index, name in enumerate(names):
            datasets.setdefault((name, "calibration"), f"{part}.datasets.{index}")
        for index, name in enumerate(job.evaluation.tasks):
            task = TASKS.get(name)
            if task is not None and not local_copy(settings.local_tasks, task):
                dataset = f"{task.repository}:{task.config or ''}:{task.splits[0]}"
                tasks[name] = (dataset, f"evaluation.tasks.{index}")
    return _NamedOnHub(
        tuple(dict.fromkeys(each for each in models if "/" in each and not each.startswith(JOB_PREFIX))),
        {key: param for key, param in datasets.items() if is_hub_dataset(key[0])},
        tasks,
    )


def _vocabulary_texts(job: JobBody) -> tuple[str, Sequence[str]]:
    """Return the part of a body that chooses tokens, and the further texts on which they are counted."""
    if job.vocabulary is not None:
        return "vocabulary", job.vocabulary.datasets
    try:
        choice = parse_parameters(job.method, job.parameters).vocabulary_choice
    except (InvalidParameters, UnknownMethod):  # the resolution says so
        choice = None
    return "parameters", () if choice is None else choice.datasets


def _dataset(hub: OpenHub, name: str, use: Use, param: str) -> HubDataset:
    return find_hub_dataset(hub(), name, use, param)
