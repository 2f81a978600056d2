"""LoRA: its description."""

from core.engine.recovery.recovery_info import RecoveryInfo

INFO = RecoveryInfo(
    id="lora",
    rank=20,
    summary="trains low-rank adapters on the linear layers and merges them into the remaining weights",
    task_families=("language-model",),
    adapters="always",
)
