"""States of jobs, sweeps, publications and samples, stages of a job, and types of its events."""

from typing import Final, Literal

from pydantic import JsonValue

JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
Stage = Literal["fetch", "write", "open", "prune", "recover", "evaluate", "verify", "store"]
AttemptOutcome = Literal["succeeded", "failed", "cancelled", "released", "lost"]
EventType = Literal["status", "stage", "progress", "log", "metric"]

DiscoveryState = Literal["waiting", "running", "found", "failed"]
SampleState = Literal["waiting", "running", "ready", "failed"]

SweepStatus = Literal["running", "succeeded", "failed", "cancelled"]
PointStatus = Literal["waiting", "queued", "running", "cancelling", "succeeded", "failed", "cancelled", "not_run"]
PointStage = Literal["full", "probe"]

PublicationStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]

FINISHED: Final[frozenset[JsonValue]] = frozenset({"succeeded", "failed", "cancelled"})
"""Final states of a job, a sweep or a publication."""
