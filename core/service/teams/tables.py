"""Tables of teams, API keys, people, their sessions, and the audit trail."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class TeamRow(Base):
    """A team: its quotas (null: none) and its use of them.

    `running` counts its jobs that a worker holds (running or cancelling). `device_seconds` is the time that workers
    spent on its attempts that ended in the calendar month (UTC) beginning at `device_month`. `stored_bytes` is the size
    of its artifacts and uploads. `weight` is its share of a queue in which other teams wait too.
    """

    __tablename__ = "teams"
    __table_args__ = (
        CheckConstraint("running >= 0", name="running_not_negative"),
        CheckConstraint("stored_bytes >= 0", name="stored_bytes_not_negative"),
        CheckConstraint("weight > 0", name="weight_positive"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    running: Mapped[int] = mapped_column(server_default=text("0"))
    max_running: Mapped[int | None]
    max_queued: Mapped[int | None]
    max_device_seconds: Mapped[float | None] = mapped_column(Double)
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    weight: Mapped[float] = mapped_column(Double, server_default=text("1"))
    device_seconds: Mapped[float] = mapped_column(Double, server_default=text("0"))
    device_month: Mapped[datetime | None]
    stored_bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class InstallationRow(Base):
    """The only row about this installation: its id, which is also written to its store.

    `unknown_artifacts` is the last count of jobs with artifacts in the store and without a row in the database.
    """

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("is_only", name="is_only"),)

    is_only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    id: Mapped[str]
    unknown_artifacts: Mapped[int] = mapped_column(server_default=text("0"))


class WorkloadRuleRow(Base):
    """A team's rule for pipelines: tokens of an issuer with these claims get keys of the team."""

    __tablename__ = "workload_rules"
    __table_args__ = (
        CheckConstraint("role IN ('viewer', 'member')", name="role"),
        Index(None, "team_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    issuer: Mapped[str]
    claims: Mapped[dict[str, Any]]
    role: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ApiKeyRow(Base):
    """An API key. Only `prefix` and the HMAC `digest` of the whole token are stored.

    `workload_rule_id` is the rule by which a pipeline got the key.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("role IN ('viewer', 'member', 'admin')", name="role"),
        Index(None, "team_id", "created_at", "id"),
        Index(None, "workload_rule_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    role: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    workload_rule_id: Mapped[str | None]


class PersonRow(Base):
    """A person who signed in with an account of an OpenID Connect provider: the subject of an issuer.

    `team_id` is the team that the person chose last. `name` and `email` are those of the last sign-in.
    """

    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    issuer: Mapped[str]
    subject: Mapped[str]
    name: Mapped[str]
    email: Mapped[str | None]
    team_id: Mapped[str | None] = mapped_column(ForeignKey("teams.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    signed_in_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class MembershipRow(Base):
    """The role of a person in a team, as the claims of the last sign-in give it."""

    __tablename__ = "memberships"
    __table_args__ = (
        CheckConstraint("role IN ('viewer', 'member', 'admin')", name="role"),
        Index(None, "team_id"),
    )

    person_id: Mapped[str] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    role: Mapped[str]


class UsedTokenRow(Base):
    """A token of an issuer that counts once: its id (`jti`), kept until the token has expired."""

    __tablename__ = "used_tokens"
    __table_args__ = (Index(None, "expires_at"),)

    issuer: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime]


class PortalSessionRow(Base):
    """A browser that signed in to the portal, with an API key or as a person who acts for a team.

    Only the HMAC `digest` of its token is stored. The session of a person ends with the membership in the team. It has
    the provider's id of the session (`sid`), and the encrypted ID token, which the provider asks for when the person
    signs out.
    """

    __tablename__ = "portal_sessions"
    __table_args__ = (
        CheckConstraint("(key_id IS NULL) = (person_id IS NOT NULL AND team_id IS NOT NULL)", name="key_or_person"),
        ForeignKeyConstraint(
            ["person_id", "team_id"], ["memberships.person_id", "memberships.team_id"], ondelete="CASCADE"
        ),
        Index(None, "key_id"),
        Index(None, "person_id", "team_id"),
        Index(None, "expires_at"),
    )

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    person_id: Mapped[str | None]
    team_id: Mapped[str | None]
    provider_session: Mapped[str | None]
    sealed_id_token: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]


class AuditRow(Base):
    """One change in the audit trail: its actor, the action and the object.

    `actor` is `key:ID` or `person:ID` (with the id in `key_id` or `person_id` too), `operator` for the server's own
    command line, `nobody` for a request without a valid key, or an automation such as `trigger:ID`. `team_id` is null
    for a refused key that belongs to no team.

    `action` is noun and verb such as `job.cancel`; `details` never contain a secret; `address` is the address of the
    caller. Rows are only ever added: the database refuses to change or remove one.
    """

    __tablename__ = "audit"
    __table_args__ = (
        Index(None, "team_id", "created_at", "id"),
        Index(None, "team_id", "action", "created_at", "id"),
        Index(None, "team_id", "object_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str | None] = mapped_column(ForeignKey("teams.id"))
    actor: Mapped[str] = mapped_column(server_default="unknown")
    key_id: Mapped[str | None]
    person_id: Mapped[str | None]
    action: Mapped[str]
    object_id: Mapped[str]
    details: Mapped[dict[str, Any]]
    request_id: Mapped[str | None]
    address: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
