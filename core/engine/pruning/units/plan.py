"""Plan of a structured run, with every choice resolved."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.engine.architectures.heterogeneous import Layout
from core.engine.architectures.unit_counts import AttentionMode
from core.engine.models.folder import ModelFolder
from core.engine.options.base import MethodParameters
from core.engine.options.compensation import Refit, RefitOptions
from core.engine.options.width_counts import WidthReduction
from core.engine.pruning.layerwise.plan import MICRO_BATCH_TOKENS, engine_facts, model_facts
from core.engine.pruning.protocols.units import BlockUnitMethod, StructuredMethod
from core.engine.resume.fingerprint import Runtime, fingerprint


@dataclass(frozen=True)
class StructuredPlan:
    """The choices of one run: how layers get narrower, or how many layers are removed.

    `sparsity` is a share of all parameters of the model, `at_least` that no less is removed. `dtype` is the model's
    own.
    """

    method_id: str
    sparsity: float
    parameters: MethodParameters
    layout: Layout
    at_least: bool
    narrowing: WidthReduction | None
    removed_layers: int
    dtype: torch.dtype
    forward_dtype: torch.dtype
    device: torch.device
    method: StructuredMethod | BlockUnitMethod = field(compare=False)

    @property
    def compensation(self) -> Refit | None:
        """Options of the refit of what is left; None: no refit."""
        asked = self.parameters.compensation if isinstance(self.parameters, RefitOptions) else None
        return asked if asked is not None and asked.refits else None

    @property
    def attention(self) -> AttentionMode:
        """The unit by which attention heads are removed."""
        return "none" if self.narrowing is None else self.narrowing.attention

    @property
    def weight_reads(self) -> int:
        """Times the model's weights are read: to choose what to remove, and to remove it."""
        return 1 + self.method.weight_reads

    def micro_batch(self, length: int) -> int:
        """Return the number of sequences of `length` tokens per forward."""
        return max(1, MICRO_BATCH_TOKENS // length)

    def fingerprint(self, folder: ModelFolder, revision: str, tokens: dict[str, Tensor]) -> str:
        """Hash everything the run's numbers depend on; a later attempt resumes only where the hash is the same."""
        facts = {
            "method": self.method_id,
            "sparsity": self.sparsity,
            "at_least": self.at_least,
            "layout": self.layout,
            "parameters": self.parameters.model_dump(mode="json"),
            **model_facts(folder, revision, tokens),
        }
        return fingerprint("prune", facts, Runtime.of(self.device, self.forward_dtype))

    def facts(self) -> dict[str, Any]:
        """Return the engine's settings for the report."""
        protected = [] if self.narrowing is None else sorted(self.narrowing.protected)
        compensation = self.compensation
        return {
            "attention": self.attention,
            "layout": self.layout,
            "protected_layers": protected,
            "compensation": None if compensation is None else compensation.model_dump(mode="json"),
            **engine_facts(self),
        }
