"""LoRA: its description."""

from core.engine.recovery.recovery_info import RecoveryInfo

INFO = RecoveryInfo(
    id="lora",
    rank=20,
    summary="low-rank adapters on the linear layers, merged into the surviving weights",
    task_families=("language-model",),
    adapters="always",
)
