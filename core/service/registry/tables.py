"""Tables of registered models and datasets, and of uploads."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.database import SMALL_FACTS, Base

_NULLABLE = JSONB(none_as_null=True)


class ModelRow(Base):
    """A model: a folder of this machine (`path`), or uploaded files in the store (`prefix` and `files`).

    `revision` is its content hash. `description` is a `ModelDescription`, read only where it is needed, and `facts` are
    its small parts. `files` has the path, bytes and sha256 of each file. `provenance` is a `ModelProvenance`, null
    where no signed statement came with it.
    """

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("team_id", "name"),
        Index(None, "team_id", "created_at", "id"),
        CheckConstraint("(path IS NULL) <> (prefix IS NULL)", name="path_or_prefix"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    path: Mapped[str | None]
    prefix: Mapped[str | None]
    files: Mapped[list[dict[str, Any]] | None] = mapped_column(_NULLABLE)
    source: Mapped[str]
    revision: Mapped[str]
    description: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    facts: Mapped[dict[str, Any]] = mapped_column(Computed(SMALL_FACTS))
    provenance: Mapped[dict[str, Any] | None] = mapped_column(_NULLABLE)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class DatasetRow(Base):
    """Text or image set: a file or folder of this machine (`path`), or an uploaded file (`prefix`, named in `files`).

    `sha256` is the hash of the file, or of a folder's content. The columns about images are null for texts; `documents`
    and `characters` are 0 for images. `left_out` counts the unused rows of a set of conversations by reason.
    """

    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("team_id", "name"),
        Index(None, "team_id", "created_at", "id"),
        CheckConstraint("(path IS NULL) <> (prefix IS NULL)", name="path_or_prefix"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    path: Mapped[str | None]
    prefix: Mapped[str | None]
    files: Mapped[list[dict[str, Any]] | None] = mapped_column(_NULLABLE)
    format: Mapped[str]
    text_field: Mapped[str]
    source: Mapped[str]
    documents: Mapped[int] = mapped_column(BigInteger)
    characters: Mapped[int] = mapped_column(BigInteger)
    left_out: Mapped[list[dict[str, Any]] | None] = mapped_column(_NULLABLE)
    images: Mapped[int | None] = mapped_column(BigInteger)
    classes: Mapped[int | None]
    image_field: Mapped[str | None]
    label_field: Mapped[str | None]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


UPLOAD_IS_OPEN = "status = 'open'"
"""Condition of the index of open uploads; a conflict is found by it only for this text, without parameters."""


class UploadRow(Base):
    """Upload of a model or dataset. `bytes` is the total of all files, counted on the team while the upload is open.

    `object_id` is the future id of the model or dataset, so that an interrupted completion continues in the same place.
    `completing_until` is the lease of the request that completes the upload, and `completing_by` the name of its
    holder. `error` is the reason of a failure.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("kind IN ('model', 'dataset')", name="kind"),
        CheckConstraint("status IN ('open', 'complete', 'failed')", name="status"),
        Index(None, "team_id", "created_at", "id"),
        Index("ix_uploads_list_by_kind", "team_id", "kind", "created_at", "id"),
        Index("ix_uploads_list_by_status", "team_id", "status", "created_at", "id"),
        Index(None, "expires_at"),
        Index("ix_uploads_open", "team_id", "kind", "name", unique=True, postgresql_where=text(UPLOAD_IS_OPEN)),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    kind: Mapped[str]
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="open")
    object_id: Mapped[str]
    format: Mapped[str | None]
    text_field: Mapped[str]
    image_field: Mapped[str | None]
    label_field: Mapped[str | None]
    source: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    part_bytes: Mapped[int]
    error: Mapped[dict[str, Any] | None]
    completing_until: Mapped[datetime | None]
    completing_by: Mapped[str | None]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class UploadFileRow(Base):
    """A file of an upload, as announced, and the number of its bytes that have arrived.

    `checked`: its metadata (config, safetensors header) was checked. `stored`: its hash is right, and it is in its
    final place.
    """

    __tablename__ = "upload_files"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    received: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    checked: Mapped[bool] = mapped_column(server_default=text("false"))
    stored: Mapped[bool] = mapped_column(server_default=text("false"))


class UploadPartRow(Base):
    """A part that arrived; `place` is its name in the store, below the upload's prefix."""

    __tablename__ = "upload_parts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["upload_id", "path"],
            ["upload_files.upload_id", "upload_files.path"],
            name="fk_upload_parts_file",
            ondelete="CASCADE",
        ),
    )

    upload_id: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    place: Mapped[str]
