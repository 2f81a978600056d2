"""Facts of a pass over a model's blocks, by which the memory that it takes on a device is accounted for."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.reload_memory import VERIFIED_POSITIONS
from core.engine.options.base import MethodParameters
from core.engine.options.compensation import Refit
from core.methods.cost import FLOAT, Cost, CostFacts

LOGIT_POSITIONS = 256
"""Positions whose logits are computed at a time."""
_MICRO_BATCH_TOKENS = 4096
_ROTARY_FEATURES = 256
"""Cosines and sines of a position, of the widest heads."""


@dataclass(frozen=True)
class PassFacts:
    """Facts of a pass that removes units, which all its stages share.

    `forward_bytes` are those of a value in the calibration forward; `lanes` are the models that calibration tokens go
    through side by side.
    """

    facts: CostFacts[MethodParameters]
    cost: Cost[MethodParameters]
    compensation: Refit | None
    forward_bytes: int
    activation_budget_bytes: int
    device: DeviceKind

    @property
    def description(self) -> ModelDescription:
        return self.facts.description

    @property
    def weight_bytes(self) -> int:
        return WEIGHT_BYTES[self.description.dtype]

    @property
    def unshared_bytes(self) -> int:
        """Bytes of a stored weight beside the one of the forward; none where one tensor is both."""
        return 0 if self.weight_bytes == self.forward_bytes else self.weight_bytes

    @property
    def lanes(self) -> int:
        refitted = 2 if self.compensation is not None and self.compensation.refits else 1
        return max(refitted, self.cost.calibration_lanes(self.facts))

    @property
    def micro_batch(self) -> int:
        """Tokens of a forward."""
        window = max(1, self.facts.tokens.window)
        return window * max(1, _MICRO_BATCH_TOKENS // window)

    @property
    def driving(self) -> int:
        """Tokens with which blocks are pruned: to calibrate, else to evaluate, else to verify."""
        tokens = self.facts.tokens
        return tokens.calibration or tokens.evaluation or VERIFIED_POSITIONS

    @property
    def outer_bytes(self) -> int:
        """Bytes of embeddings, final norm and head."""
        description = self.description
        outer = description.parameters - description.prunable_parameters - description.other_module_parameters
        rotary = 4 * min(_ROTARY_FEATURES, description.hidden_size) * self.facts.tokens.window * self.weight_bytes
        return max(outer, 0) * self.weight_bytes + rotary

    def logits_bytes(self, sequence: int) -> int:
        """Return the most bytes while the loss of so many tokens is measured, a few positions at a time."""
        description, w = self.description, self.weight_bytes
        logits = min(LOGIT_POSITIONS, sequence - 1) * description.vocabulary_size
        normed = sequence * description.hidden_size * (w + 2 * FLOAT)
        return max(normed + logits * w, logits * max(w + (FLOAT if w < FLOAT else 0), 2 * FLOAT))

    def kept_bytes(self, streams: Sequence[tuple[int, int]]) -> int:
        """Return the bytes of hidden states that stay, of streams each of so many tokens and bytes of a value.

        They are kept micro-batch by micro-batch, as long as the next one fits the budget.
        """
        used = 0
        for tokens, width in streams:
            remaining = tokens
            while remaining > 0:
                nbytes = min(remaining, self.micro_batch) * self.description.hidden_size * width
                if used + nbytes <= self.activation_budget_bytes:
                    used += nbytes
                remaining -= self.micro_batch
        return used
