"""The states of a sweep and of its points."""

from typing import Literal, get_args

SweepStatus = Literal["running", "succeeded", "failed", "cancelled"]
PointStatus = Literal["waiting", "queued", "running", "cancelling", "succeeded", "failed", "cancelled", "not_run"]
Stage = Literal["full", "probe"]

SWEEP_STATUSES: tuple[SweepStatus, ...] = get_args(SweepStatus)
STAGES: tuple[Stage, ...] = get_args(Stage)

ACTIVE: tuple[PointStatus, ...] = ("queued", "running", "cancelling")
"""States of a point whose job counts towards `max_concurrent`."""
