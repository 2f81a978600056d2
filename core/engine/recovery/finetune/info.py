"""Fine-tuning: its description."""

from core.engine.recovery.recovery_info import RecoveryInfo

INFO = RecoveryInfo(
    id="finetune",
    rank=10,
    summary="every parameter is trained, pruned weights held at zero",
    task_families=("language-model", "image-classification"),
    adapters="never",
)
