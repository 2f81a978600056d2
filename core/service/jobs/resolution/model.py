"""Resolution of a job's `model`: a registered name, a hub repository, or another job's artifact."""

from dataclasses import dataclass

from sqlalchemy import select

from core.engine.architectures.declared import declared_architecture
from core.engine.architectures.describe import describe_discovered
from core.engine.architectures.description import (
    Description,
    Source,
    UndiscoveredModel,
    descriptions,
    sources,
    stored_description,
)
from core.engine.exporters.registry import ADDED
from core.methods.registry import get_method
from core.pipeline.reports.report import Report
from core.service.discoveries.requests import discovered
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.hub_lookup import JOB_PREFIX
from core.service.jobs.tables import ArtifactFileRow, JobReportRow, JobRow
from core.service.registry.service import find_row, names
from core.service.registry.tables import ModelRow
from core.service.sources.folders import content_hash_of
from core.service.sources.references import FileReference, FolderModel, HubModel, ModelReference, StoredModel
from core.storage import HASHED_SUFFIX, PACKED_SUFFIX, artifact_prefix
from core.validation import nearest_hint
from secateur_wire.errors import UnknownModel

_ADDED_SUFFIXES = tuple(suffix for each in ADDED.values() for suffix in each.suffixes)


@dataclass(frozen=True)
class NamedModel:
    """Model of a given name, possibly not discovered yet."""

    reference: ModelReference
    source: Source
    pinned: str


@dataclass(frozen=True)
class ResolvedModel:
    """Model as a job runs it: its reference, its description, and its unambiguous name in job bodies."""

    reference: ModelReference
    description: Description
    pinned: str

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def revision(self) -> str:
        """Return a commit of the hub, or the hash of the content."""
        return self.reference.revision


def resolve_model(context: RequestContext, reference: str, queue: str | None = None) -> ResolvedModel:
    """Return the model of a name, as workers of `queue` see it.

    Raises the errors of `find_model` and `discovered`: NotDiscovered where the model is not discovered yet.
    """
    named = find_model(context, reference)
    description = named.source
    if isinstance(description, UndiscoveredModel):
        description = discovered(context.session, description, queue)
    known = named.reference
    if description.discovered is not None:
        known = known.model_copy(update={"discovered": description.discovered})
    return ResolvedModel(known, description, named.pinned)


def find_model(context: RequestContext, reference: str) -> NamedModel:
    """Return the model of a name; raises UnknownModel, and errors of its look-up on the hub."""
    if reference.startswith(JOB_PREFIX):
        return _artifact(context, reference)
    if "/" in reference:
        described = context.hub.model(reference)
        on_hub = HubModel(
            name=described.repository,
            repository=described.repository,
            revision=described.revision,
            files=described.files,
            is_public=described.is_public,
            licence=described.licence,
        )
        return NamedModel(on_hub, described.description, f"{described.repository}@{described.revision}")
    session, team_id = context.session, context.team_id
    row = find_row(session, ModelRow, team_id, reference)
    if row is None:
        known = names(session, ModelRow, team_id)
        raise UnknownModel(
            f"there is no model {reference!r}; registered: {', '.join(known) or 'none'}. A model of the hub is named "
            f"org/name{nearest_hint(reference, known)}",
            param="model",
        )
    registered: ModelReference
    if row.prefix is not None:
        files = tuple(FileReference.model_validate(file) for file in row.files or ())
        registered = StoredModel(name=row.name, prefix=row.prefix, revision=row.revision, files=files)
    else:
        registered = FolderModel.model_validate({"name": row.name, "path": row.path, "revision": row.revision})
    source = sources.validate_python(row.description)
    if isinstance(source, UndiscoveredModel):
        declared = declared_architecture(source.architecture, source.family)
        if declared is not None:  # since the model was registered
            source = describe_discovered(source, declared)
            row.description = stored_description(source)
    return NamedModel(registered, source, row.name)


def _artifact(context: RequestContext, reference: str) -> NamedModel:
    session = context.session
    job_id = reference.removeprefix(JOB_PREFIX)
    query = select(JobRow).where(JobRow.id == job_id, JobRow.team_id == context.team_id)
    # The lock keeps its artifact from being deleted meanwhile.
    job = session.scalar(query.with_for_update(read=True, key_share=True))
    if job is None:
        raise UnknownModel(f"model {reference!r}: there is no job {job_id!r}", param="model")
    if job.status != "succeeded":
        raise UnknownModel(
            f"model {reference!r}: the job is {job.status}; only a job that succeeded can be a model", param="model"
        )
    if get_method(job.method).measures:
        raise UnknownModel(
            f"model {reference!r}: the job only measured ({job.method}) and made no model; use it for "
            "parameters.allocation of a method that prunes",
            param="model",
        )
    rows = session.scalars(
        select(ArtifactFileRow).where(ArtifactFileRow.job_id == job.id, ArtifactFileRow.attempt == job.attempt)
    ).all()
    files = [FileReference(path=row.path, bytes=row.bytes, sha256=row.sha256) for row in rows]
    if not files:
        raise UnknownModel(f"model {reference!r}: the job's artifact was deleted", param="model")
    prefix = artifact_prefix(job.id, job.attempt)
    report = Report.model_validate(session.get_one(JobReportRow, (job.id, job.attempt)).report)
    description = descriptions.validate_python(report.artifact)
    is_packed = any(file.path.endswith((PACKED_SUFFIX, HASHED_SUFFIX)) for file in files)
    stored = StoredModel(
        name=reference,
        prefix=prefix,
        revision=content_hash_of({row.path: row.sha256 for row in rows}),
        files=tuple(file for file in files if not file.path.endswith(_ADDED_SUFFIXES)),
        unpacked_bytes=description.bytes if is_packed else None,
        is_artifact=True,
    )
    return NamedModel(stored, description, reference)
