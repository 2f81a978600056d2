"""Publication to the hub, by its own client, with the rights of the repository's owner.

Large files are sent one after the other to the hub's file storage, which skips files that it has. One commit at the end
names them all and contains the small files. Its parent must be the branch's head at the beginning: of two publications
at once, one starts over. A publication that is repeated, after an interruption or after its end, comes to the same
commit: files that are there already create no new one.
"""

from typing import Any, NoReturn

import httpx2
import structlog
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging

from core.service.publications.destinations import HubDestination
from core.service.publications.lease import LostError, PublicationLease
from core.service.publications.reading import StoredArtifact, require_intact, watched
from core.storage import is_disk_full
from secateur_wire.errors import DestinationRefused, DestinationUnavailable, DiskFull, SecateurError

log = structlog.get_logger()


def publish_to_hub(
    artifact: StoredArtifact, destination: HubDestination, *, token: str, endpoint: str, lease: PublicationLease
) -> dict[str, Any]:
    """Publish an artifact; return its commit and its page.

    Raises DestinationRefused, DestinationUnavailable, DiskFull, the errors of the store, and LostError.
    """
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its warnings quote signed addresses
    api = HfApi(endpoint=endpoint.rstrip("/"), token=token)
    repository = destination.repository
    message = destination.message or f"Artifact of {artifact.job_id}, pruned by Secateur"
    try:
        api.create_repo(repository, private=destination.private, exist_ok=True)
        if destination.revision not in (None, "main"):
            api.create_branch(repository, branch=str(destination.revision), exist_ok=True)
        head = api.model_info(repository, revision=destination.revision).sha
        operations = _sent(api, artifact, destination, lease)
        lease.check()
        done = api.create_commit(
            repository, operations, commit_message=message, revision=destination.revision, parent_commit=head
        )
        _require_all(api, artifact, destination, done.oid)
    except Exception as error:
        _raise_translated(error, destination, api.endpoint)
    return {"url": str(done.commit_url), "commit": str(done.oid)}


def _sent(
    api: HfApi, artifact: StoredArtifact, destination: HubDestination, lease: PublicationLease
) -> list[CommitOperationAdd]:
    """Send the large files; return the operations of the commit.

    The hub takes all other files with the commit; each of them is in memory.
    """
    operations = []
    done = 0
    for number, file in enumerate(artifact.files):
        is_hashed = False

        def watch(place: int, number: int = number, done: int = done) -> None:
            lease.at(number, done + (place if is_hashed else 0))  # noqa: B023 - called within this iteration only

        with watched(artifact, file, watch) as stream:
            operation = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=stream)  # This call hashes the file.
            require_intact(file, operation.upload_info.sha256.hex())
            is_hashed = True
            api.preupload_lfs_files(destination.repository, [operation], revision=destination.revision)
            # It was not sent, because the hub does not treat it as a large file.
            if operation.path_or_fileobj is stream:
                stream.seek(0)
                operation.path_or_fileobj = stream.read()
        operations.append(operation)
        done += file.bytes
        lease.at(number + 1, done)
    return operations


def _require_all(api: HfApi, artifact: StoredArtifact, destination: HubDestination, commit: str) -> None:
    """Require each file in the commit; raises DestinationRefused.

    The client omits files that a repository ignores.
    """
    model_info = api.model_info(destination.repository, revision=commit, files_metadata=True)
    present = {each.rfilename: each for each in model_info.siblings or ()}
    for file in artifact.files:
        each = present.get(file.path)
        if each is None or each.size != file.bytes or (each.lfs is not None and each.lfs.sha256 != file.sha256):
            raise DestinationRefused(
                f"{destination.place} does not hold {file.path} as it was sent: does its .gitignore name it?",
                param="to",
            )


def _raise_translated(error: Exception, destination: HubDestination, endpoint: str) -> NoReturn:
    """Raise the error of this service for one of the client, which wraps what its threads raise.

    No message of the client is passed on: they quote addresses and headers.
    """
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, LostError | SecateurError):
            raise at
        if isinstance(at, HfHubHTTPError):
            if not str(at.response.url).startswith(f"{endpoint}/"):  # The storage of large files has temporary errors.
                status = at.response.status_code
                raise DestinationUnavailable(f"the hub's file storage answers {status}", param="to") from None
            raise _refusal(at, destination) from None
        if is_disk_full(at):  # The client stores parts of the sent files on this machine.
            raise DiskFull("no space is left on the disk of the machine that publishes") from None
        if isinstance(at, httpx2.HTTPError | httpx2.InvalidURL | OSError):
            raise DestinationUnavailable(
                f"the hub cannot be reached, or broke off ({type(at).__name__})", param="to"
            ) from None
        at = at.__cause__
    log.warning("the hub's answer cannot be read", to=destination.place, error=type(error).__name__)
    raise DestinationRefused(
        f"the hub does not accept {destination.place}: its answer cannot be read ({type(error).__name__})",
        param="to",
    ) from None


def _refusal(error: HfHubHTTPError, destination: HubDestination) -> SecateurError:
    status = error.response.status_code
    where = destination.repository
    if isinstance(error, GatedRepoError):
        return DestinationRefused(f"{where} is gated, and the token's account has no access to it", param="token")
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return DestinationRefused("the hub does not accept the token: it is wrong or was revoked", param="token")
    if status == 403:
        return DestinationRefused(
            f"the token may not write to {where}: it needs a role that can write, and rights in the organisation",
            param="token",
        )
    if isinstance(error, RepositoryNotFoundError):
        return DestinationRefused(f"there is no repository {where}, and the token may not create it", param="to")
    if isinstance(error, RevisionNotFoundError):
        return DestinationRefused(f"{where} has no branch {destination.revision!r}", param="revision")
    if status in (408, 409, 412, 423, 425, 429) or status >= 500:
        return DestinationUnavailable(f"the hub answers {status} for {where}", param="to")
    return DestinationRefused(f"the hub refuses to take the artifact into {where}: it answers {status}", param="to")
