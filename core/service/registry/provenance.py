"""Signed statement that comes with a model, checked by the installation's own keys when the model is registered."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from sqlalchemy.orm import Session

from core.engine.checkpoints.files import is_model_file
from core.service.teams import audit
from core.settings import Settings
from core.signing import public_keys
from secateur_wire.provenance import (
    MODEL_DEPENDENCY,
    PROVENANCE,
    ModelProvenance,
    ResourceDescriptor,
    Signature,
    SourceData,
    SourceModel,
    Statement,
)
from secateur_wire.signed_statement import (
    InvalidStatement,
    UntrustedStatement,
    file_differences,
    hashes_of,
    open_statement,
    parse_public_keys,
)

_MOST_DIFFERENCES: Final = 5
_MOST_KEYS: Final = 5
_LONGEST_REASON: Final = 1000
_KEYID: Final = re.compile(r"[0-9A-Za-z._:-]{1,128}")


def check_statement(
    session: Session, team_id: str, content: bytes | None, digests: Mapping[str, str], settings: Settings
) -> ModelProvenance | None:
    """Return where a team's model comes from by the statement among its files; None where it has no statement.

    `content` is the statement's file, `digests` are the SHA-256 of all files by name. Uploads leave some files of an
    artifact out, such as the model card: the model is as signed where no file differs or was added, and no file that
    belongs to a model is missing.
    """
    if content is None:
        return None
    keys = parse_public_keys([key.pem for key in public_keys(settings)])
    try:
        statement, keyid = open_statement(content, keys)
    except UntrustedStatement as error:
        return _untrusted(error)
    except InvalidStatement as error:
        return _refused("invalid", str(error))
    present = {name: sha256 for name, sha256 in digests.items() if name != PROVENANCE}
    differences = list(islice(file_differences(hashes_of(statement), present, is_model_file), _MOST_DIFFERENCES + 1))
    if differences:
        more = "; and others" if len(differences) > _MOST_DIFFERENCES else ""
        return _refused("invalid", "; ".join(differences[:_MOST_DIFFERENCES]) + more, keyid)
    return _believed(session, team_id, statement, keyid)


def _untrusted(error: UntrustedStatement) -> ModelProvenance:
    named = [keyid for keyid in error.keyids if _KEYID.fullmatch(keyid)][:_MOST_KEYS]
    if not named:
        return _refused("invalid", f"{PROVENANCE} has no signature")
    if forged := set(named) & set(error.trusted):
        return _refused(
            "invalid",
            f"{PROVENANCE} was changed after it was signed: its signature is not the one of key {min(forged)}",
            *named,
        )
    return _refused("foreign", "it names no key of this installation", *named)


def _refused(signature: Signature, reason: str, *keyids: str) -> ModelProvenance:
    printable = "".join(letter if letter.isprintable() else "?" for letter in reason)
    return ModelProvenance(
        signature=signature,
        reason=printable[:_LONGEST_REASON],
        keyids=list(keyids),
        job=None,
        source=None,
        method=None,
        data=[],
    )


def _believed(session: Session, team_id: str, statement: Statement, keyid: str) -> ModelProvenance:
    """Return the facts of a statement of this installation. A job of another team is left out."""
    definition, run = statement.predicate.build_definition, statement.predicate.run_details
    job_id = run.metadata.invocation_id.partition("/")[0]
    method = definition.external_parameters.get("method")
    source, data = _dependencies(definition.resolved_dependencies)
    return ModelProvenance(
        signature="own",
        reason=None,
        keyids=[keyid],
        job=job_id if audit.actors_of(session, team_id, "job.submit", [job_id]) else None,
        source=source,
        method=method if isinstance(method, str) else None,
        data=data,
    )


def _dependencies(dependencies: Sequence[ResourceDescriptor]) -> tuple[SourceModel | None, list[SourceData]]:
    source, data = None, []
    for each in dependencies:
        if each.name.startswith(MODEL_DEPENDENCY):
            for algorithm, digest in each.digest.items():
                revision = digest if algorithm == "gitCommit" else f"{algorithm}:{digest}"
                source = SourceModel(name=each.name.removeprefix(MODEL_DEPENDENCY), revision=revision)
        elif "sha256" in each.digest:
            data.append(SourceData(name=each.name, sha256=each.digest["sha256"]))
    return source, data
