"""Fine-tuning: its description."""

from core.engine.recovery.recovery_info import RecoveryInfo

INFO = RecoveryInfo(
    id="finetune",
    rank=10,
    summary="trains every parameter while pruned weights stay zero",
    task_families=("language-model", "image-classification"),
    adapters="never",
)
