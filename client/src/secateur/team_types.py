"""Answers of the server about the team, its keys and the fleet."""

from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from secateur.types import Answer

Role = Literal["viewer", "member", "admin"]


class Key(Answer):
    """An API key without its secret: `prefix` is how it starts. `state` is active, expired or revoked."""

    id: str
    name: str
    role: Role
    state: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(Key):
    """A new API key: `key` is shown this once."""

    key: str


class Quotas(Answer):
    """Limits of the team's use; None: no limit."""

    max_running: int | None
    max_queued: int | None
    max_device_seconds: float | None
    max_stored_bytes: int | None


class Usage(Answer):
    """Current use by the team. `device_seconds` counts from `month_started_at`."""

    running: int
    queued: int
    device_seconds: float
    month_started_at: datetime
    stored_bytes: int


class Team(Answer):
    """The team of the API key. `weight` is its share of a queue that others wait in too."""

    id: str
    name: str
    weight: float
    quotas: Quotas
    usage: Usage
    created_at: datetime


class HubToken(Answer):
    """Owner of the token that the server uses at the hub for the team.

    `team`: its own, set at `updated_at`; `operator`: the server's; or none.
    """

    used: str | None
    updated_at: datetime | None


class AuditEntry(Answer):
    """One change: what (`action`) to what (`object_id`), by whom (`actor`) and from where (`address`).

    `actor` is `key:ID`, `operator`, or what acts by itself, such as `trigger:ID`.
    """

    id: str
    actor: str
    action: str
    object_id: str
    key_id: str | None
    request_id: str | None
    address: str | None = None
    details: dict[str, JsonValue]
    created_at: datetime


class Worker(Answer):
    """A worker that gave a sign of life lately. `state` is idle, busy, paused or draining; `reason` says why."""

    id: str
    queue: str
    device: str
    hostname: str
    job_id: str | None
    state: str
    reason: str | None = None
    device_name: str | None = None
    device_memory_bytes: int | None = None
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    version: str | None = None
    started_at: datetime
    heartbeat_at: datetime


class Queue(Answer):
    """A queue: jobs that wait, for how many seconds the oldest has, and jobs that workers hold."""

    name: str
    queued: int
    oldest_seconds: float
    running: int


class Attempt(Answer):
    """One attempt at a job. `outcome` is None while it runs; `stages` holds seconds by stage."""

    attempt: int
    worker_id: str
    queue: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    error_code: str | None
    stages: dict[str, float] | None = None
    needs: dict[str, JsonValue] | None = None
    measured: dict[str, JsonValue] | None = None
