"""Plan of a pass that measures sensitivity, with every choice resolved."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.engine.models.folder import ModelFolder
from core.engine.pruning.plan import LayerwisePlan, model_facts
from core.engine.resume.fingerprint import Runtime, fingerprint


@dataclass(frozen=True)
class SensitivityPlan:
    """Rates and scope of the measurement; `pruning` is the plan of the measured method at the highest rate."""

    pruning: LayerwisePlan
    rates: tuple[float, ...]
    scope: Literal["layer", "module"]

    @property
    def dtype(self) -> torch.dtype:
        return self.pruning.dtype

    @property
    def forward_dtype(self) -> torch.dtype:
        return self.pruning.forward_dtype

    @property
    def device(self) -> torch.device:
        return self.pruning.device

    def micro_batch(self, length: int) -> int:
        return self.pruning.micro_batch(length)

    def fingerprint(self, folder: ModelFolder, revision: str, tokens: dict[str, Tensor]) -> str:
        facts = {
            "method": self.pruning.method_id,
            "pattern": self.pruning.pattern.text,
            "rates": self.rates,
            "scope": self.scope,
            "parameters": self.pruning.parameters.model_dump(mode="json"),
            **model_facts(folder, revision, tokens),
        }
        return fingerprint("sensitivity", facts, Runtime.of(self.device, self.forward_dtype))
