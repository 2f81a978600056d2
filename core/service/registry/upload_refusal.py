"""Refusal of invalid uploads: they end at once, with the reason and a remedy."""

from typing import TypeVar

from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.registry.uploads import find_upload, object_prefix, upload_prefix
from core.service.teams import audit
from core.service.teams.principal import Principal
from core.service.teams.quotas import release_stored
from core.storage import Store
from core.storage.removal import remove_prefixes
from secateur_wire.errors import SecateurError

Refusal = TypeVar("Refusal", bound=SecateurError)


def refuse_upload(
    sessions: sessionmaker[Session], store: Store, caller: Principal, upload_id: str, error: Refusal
) -> Refusal:
    """End an upload whose bytes are not a valid model or dataset, and return the error with advice.

    Its files are removed and its space is released: the same bytes would be refused again.
    """
    with transaction(sessions) as session:
        upload = find_upload(session, caller.team_id, upload_id, for_change=True)
        refusal = type(error)(
            f"{error.message}. The upload is refused and what had arrived is removed, for the same bytes would be "
            f"refused again: put that right, and upload the {upload.kind} once more",
            param="files",
        )
        if upload.status != "open":  # Another part was refused before this one.
            return refusal
        upload.status, upload.error = "failed", {"code": refusal.code, "message": refusal.message}
        audit.note(session, caller, "upload.fail", upload_id, {"kind": upload.kind, "name": upload.name})
        release_stored(session, upload.team_id, upload.bytes)
        leftovers = (upload_prefix(upload_id), object_prefix(upload.kind, upload.object_id))
    remove_prefixes(store, leftovers)
    return refusal
