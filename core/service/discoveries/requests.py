"""Look-ups and requests of discoveries: the facts of a model where they are known, else the discovery to wait for."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.engine.architectures.declared import declared_architecture
from core.engine.architectures.describe import describe_discovered
from core.engine.architectures.description import ModelDescription, UndiscoveredFacts, UndiscoveredModel, discovery_key
from core.service.discoveries.states import OPEN
from core.service.discoveries.tables import DiscoveryRow, DiscoveryTeamRow
from core.service.discoveries.versions import version_for
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from core.service.teams.tables import TeamRow
from core.settings import Settings
from secateur_wire.discoveries import Discovery, DiscoveryError, ModelDiscovery
from secateur_wire.errors import (
    DiscoveryFailed,
    NotDiscovered,
    NotFound,
    QuotaExceeded,
    SecateurError,
    Unavailable,
    UnusableModel,
)

ID_PREFIX = "discovery_"
_USED_SECONDS = 24 * 3600.0
_WAIT_SECONDS = 30.0
_UNUSABLE: Sequence[type[UnusableModel]] = [UnusableModel, *UnusableModel.__subclasses__()]
_KINDS: Mapping[str, type[SecateurError]] = {kind.code: kind for kind in _UNUSABLE}
"""Errors that a child may report by their codes. Any other error is reported as a failed discovery."""


def discovered(session: Session, model: UndiscoveredModel, queue: str | None) -> ModelDescription:
    """Return the facts of a model as workers of a queue would find them.

    Raises NotDiscovered where the model is not discovered yet, and the error of a failed discovery.
    """
    declared = declared_architecture(model.architecture, model.family)
    if declared is not None:  # The model was described before this architecture was discovered.
        return describe_discovered(model, declared)
    return ModelDescription.model_validate(_finished(session, model, queue).description)


def _finished(session: Session, model: UndiscoveredFacts, queue: str | None) -> DiscoveryRow:
    """Return the successful discovery of a model; raises the errors of `discovered`."""
    version = version_for(session, queue)
    if version is None:
        raise _not_discovered(model, None)
    row = session.get(DiscoveryRow, id_of(model, version))
    if row is None or row.state in OPEN:
        raise _not_discovered(model, version)
    session.execute(
        update(DiscoveryRow)
        .where(DiscoveryRow.id == row.id, DiscoveryRow.used_at < seconds_from_now(-_USED_SECONDS))
        .values(used_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )
    if row.error is not None:
        raise failure_of(row.error)
    return row


def id_of(model: UndiscoveredFacts, version: str) -> str:
    """Return the id of the discovery of a model with a version of the library."""
    return ID_PREFIX + discovery_key(model.digest, version)


def known_facts(session: Session, model: UndiscoveredFacts) -> tuple[Mapping[str, Any], ModelDiscovery | None]:
    """Return the known facts of a model, and the state of its discovery; None for a discovery that succeeded.

    A model whose architecture was declared since counts as not examined: who uses it has its description made.
    """
    try:
        if declared_architecture(model.architecture, model.family) is not None:
            return model.model_dump(), ModelDiscovery(state="unknown", error=None)
        return _finished(session, model, None).facts or {}, None
    except NotDiscovered as missing:
        row = None if missing.version is None else session.get(DiscoveryRow, id_of(model, missing.version))
        state = "unknown" if row is None else row.state
        return model.model_dump(), ModelDiscovery(state=state, error=None)
    except SecateurError as error:
        failed = DiscoveryError(code=error.code, message=error.message)
        return model.model_dump(), ModelDiscovery(state="failed", error=failed)


def ask(
    session: Session, caller: Actor, model: UndiscoveredModel, version: str | None, settings: Settings
) -> Discovery:
    """Request the discovery of a model, unless it is requested already, and return the discovery.

    Raises Unavailable where no worker has reported its version of the library, and QuotaExceeded where the team has too
    many unfinished discoveries.
    """
    if version is None:
        raise Unavailable(
            "this kind of model must first be examined by a worker, and no worker has run here yet: start one and "
            "ask again",
            param="model",
            retry_after=30,
        )
    discovery_id = id_of(model, version)
    row = session.get(DiscoveryRow, discovery_id)
    if row is None:
        _require_room(session, team_of(caller), settings)
        values = model.model_dump(include={"architecture", "content"})
        created = session.scalar(
            insert(DiscoveryRow)
            .values(id=discovery_id, team_id=team_of(caller), transformers_version=version, **values)
            .on_conflict_do_nothing()
            .returning(DiscoveryRow.id)
        )
        if created is not None:
            details = {"architecture": model.architecture, "transformers": version}
            audit.note(session, caller, "discovery.ask", discovery_id, details)
        row = session.scalars(select(DiscoveryRow).where(DiscoveryRow.id == discovery_id)).one()
    session.execute(
        insert(DiscoveryTeamRow).values(discovery_id=discovery_id, team_id=team_of(caller)).on_conflict_do_nothing()
    )
    return Discovery.model_validate(row, from_attributes=True)


def ask_for(session: Session, caller: Actor, missing: NotDiscovered, settings: Settings) -> Discovery:
    """Request the discovery of the model that an error is about. Raises the errors of `ask`."""
    assert isinstance(missing.model, UndiscoveredModel), missing
    return ask(session, caller, missing.model, missing.version, settings)


def ask_if_possible(session: Session, caller: Actor, model: UndiscoveredModel, settings: Settings) -> None:
    """Request the discovery of a newly registered model; where this fails, the next job on the model requests it."""
    version = version_for(session, None)
    if version is None:
        return
    if declared_architecture(model.architecture, model.family) is None:
        try:
            ask(session, caller, model, version, settings)
        except QuotaExceeded:
            return


def get_discovery(session: Session, team_id: str, discovery_id: str) -> Discovery:
    """Return a discovery that the team asked for; raises NotFound."""
    row = session.scalar(
        select(DiscoveryRow)
        .join(DiscoveryTeamRow, DiscoveryTeamRow.discovery_id == DiscoveryRow.id)
        .where(DiscoveryRow.id == discovery_id, DiscoveryTeamRow.team_id == team_id)
    )
    if row is None:
        raise NotFound(f"there is no discovery {discovery_id!r}: inspect the model to have it examined")
    return Discovery.model_validate(row, from_attributes=True)


def failure_of(error: Mapping[str, str]) -> SecateurError:
    """Return the error of a failed discovery, with the class of its code where there is one."""
    return _KINDS.get(error["code"], DiscoveryFailed)(error["message"], param="model")


def _not_discovered(model: UndiscoveredFacts, version: str | None) -> NotDiscovered:
    error = NotDiscovered(
        f"{model.architecture} has not been discovered yet: inspect the model, which has it discovered and waits for "
        "that, then ask again",
        param="model",
    )
    error.model, error.version = model, version
    return error


def _require_room(session: Session, team_id: str, settings: Settings) -> None:
    """Require that the team has few unfinished discoveries; raises QuotaExceeded.

    The team's row is locked, so that the second of two requests sees the first's discovery.
    """
    session.execute(select(TeamRow.id).where(TeamRow.id == team_id).with_for_update(key_share=True))
    count = select(func.count()).where(DiscoveryRow.team_id == team_id, DiscoveryRow.state.in_(OPEN))
    unfinished = session.scalar(count) or 0
    if unfinished >= settings.discoveries_per_team:
        raise QuotaExceeded(
            f"{unfinished} architectures are being examined for this team, which may have "
            f"{settings.discoveries_per_team} at once: wait until one is done",
            retry_after=_WAIT_SECONDS,
            param="model",
        )
