"""Loop in the dispatcher's process that sends publications one after the other."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.duties.isolation import IsolatedRows, RowTask
from core.service.publications import queue
from core.service.publications.destinations import HubDestination
from core.service.publications.lease import LostError, PublicationLease
from core.service.publications.queue import ClaimedPublication
from core.service.publications.reading import StoredArtifact
from core.service.publications.service import sealed
from core.service.teams.server_secret import server_secret
from core.settings import Settings
from core.storage import Store, open_store
from secateur_wire.errors import InternalError, NoArtifact, NotFound, SecateurError

DUTY: Final = "publications"

logger = structlog.get_logger()


def publish_waiting(
    sessions: sessionmaker[Session], settings: Settings, goes_well: Callable[[], None] = lambda: None
) -> int | None:
    """Send due publications until none is left; return how many were started, None for none.

    `goes_well` is called at each renewal of a lease. Any number of processes may run this at once. A publication of a
    killed process is left for the next one.
    """
    with transaction(sessions) as session:
        queue.expire(session)
    rows = IsolatedRows(sessions, DUTY)
    started = 0
    while True:
        with transaction(sessions) as session:
            claimed = queue.claim(session, lease_seconds=settings.lease_seconds)
        if claimed is None:
            return started or None
        started += 1
        rows.run(RowTask(claimed.id, partial(_carry_out, sessions, settings, claimed, goes_well)))


def _carry_out(
    sessions: sessionmaker[Session], settings: Settings, claimed: ClaimedPublication, goes_well: Callable[[], None]
) -> None:
    about = {"publication": claimed.id, "job": claimed.job_id, "attempt": claimed.attempt}
    problem: Mapping[str, Any]
    try:
        with PublicationLease(sessions, claimed, settings.lease_seconds, goes_well) as lease:
            result = _sent(open_store(settings), settings, claimed, lease)
        with transaction(sessions) as session:
            is_ours = queue.succeed(session, claimed, result)
        logger.info("published" if is_ours else "published, and no longer ours", to=claimed.to, **about)
        return
    except LostError:
        logger.info("publication stopped: it is no longer ours", **about)
        return
    except SecateurError as error:
        problem = error.problem()
        logger.warning("not published", to=claimed.to, code=error.code, message=error.message, **about)
    except Exception as error:  # The message may quote the sent data, so only the error's type is reported.
        problem = InternalError("an unexpected error; the server's log has its kind").problem()
        logger.error("not published", to=claimed.to, error=_kinds(error), **about)
    with transaction(sessions) as session:
        queue.fail(session, claimed, problem, delay_seconds=settings.retry_delay_seconds)


def _sent(store: Store, settings: Settings, claimed: ClaimedPublication, lease: PublicationLease) -> dict[str, Any]:
    if not claimed.files:
        raise NoArtifact(f"the artifact of job {claimed.job_id!r} was removed")
    try:
        credentials: dict[str, str] = json.loads(sealed(server_secret(settings)).open(claimed.credentials))
    except ValueError:
        raise InternalError(
            "the stored credentials cannot be decrypted, because the server's secret has changed: publish again"
        ) from None
    artifact = StoredArtifact(store, claimed.job_id, claimed.job_attempt, tuple(claimed.files))
    destination = claimed.destination
    try:
        if isinstance(destination, HubDestination):
            from core.service.publications.to_hub import publish_to_hub

            return publish_to_hub(
                artifact, destination, token=credentials["token"], endpoint=settings.hub_endpoint, lease=lease
            )
        from core.service.publications.to_s3 import publish_to_s3  # Imported here because the library is slow to load.

        return publish_to_s3(artifact, destination, credentials=credentials, lease=lease)
    except NotFound as error:  # The errors of the store.
        raise NoArtifact(f"the artifact of job {claimed.job_id!r} is not in the store any more") from error


def _kinds(error: BaseException) -> str:
    """Return the types of an error and its causes: they help to find the cause, and quote no data."""
    kinds = []
    at: BaseException | None = error
    while at is not None:
        kinds.append(type(at).__name__)
        at = at.__cause__
    return " ← ".join(kinds)
