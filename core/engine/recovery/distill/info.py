"""Distillation: its description."""

from core.engine.recovery.recovery_info import RecoveryInfo

TOP_WORDS = 64
"""Words of a kept distribution; the mass of all others is kept as one number."""
USES_TO_KEEP = 3
"""Least average number of uses of each sequence in training for its predictions to be kept.

Choosing the most likely words takes about as long as computing the logits again. So the second use costs nothing, and
the third is the first that saves time.
"""
_WORD_BYTES = 8

INFO = RecoveryInfo(
    id="distill",
    rank=30,
    summary="trains weights or adapters towards the original model's predictions",
    task_families=("language-model", "image-classification"),
    adapters="unless null",
    learns_from_model=True,
    logit_copies=4,
    most_kept_bytes=2**28,
    token_bytes=(TOP_WORDS + 1) * _WORD_BYTES,
)
