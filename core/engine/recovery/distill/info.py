"""Distillation: its description."""

from core.engine.recovery.recovery_info import RecoveryInfo

INFO = RecoveryInfo(
    id="distill",
    rank=30,
    summary="either, against the original model's predictions",
    task_families=("language-model", "image-classification"),
    adapters="unless null",
    learns_from_model=True,
    logit_copies=4,
    most_kept_bytes=2**28,
)
