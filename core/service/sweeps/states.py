"""The states of a sweep and of its points."""

from typing import get_args

from secateur_wire.states import PointStage, PointStatus, SweepStatus

SWEEP_STATUSES: tuple[SweepStatus, ...] = get_args(SweepStatus)
STAGES: tuple[PointStage, ...] = get_args(PointStage)

ACTIVE: tuple[PointStatus, ...] = ("queued", "running", "cancelling")
"""States of a point whose job counts towards `max_concurrent`."""
