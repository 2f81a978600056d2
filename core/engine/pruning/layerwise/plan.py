"""Plan of a layer-wise pruning pass, with every choice resolved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from core.engine.architectures.layer_shape import LinearShape
from core.engine.models.folder import ModelFolder
from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import Compensation, CompensationOptions
from core.engine.options.layer_selection import LayerSelection
from core.engine.options.patterns import Pattern
from core.engine.options.propagation import PropagationOptions
from core.engine.pruning.layerwise.targets import LayerTarget
from core.engine.pruning.protocols.layerwise import Method
from core.engine.resume.fingerprint import Runtime, fingerprint, tensors_sha256

MICRO_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class LayerwisePlan:
    """The choices of one sweep.

    `sparsities` holds one sparsity per decoder layer, `counts` exact numbers of weights where a ranking over the entire
    model chose them, `rates` one share per linear layer where each has its own. `dtype` is the model's own.
    """

    method_id: str
    pattern: Pattern
    sparsity: float
    parameters: LayerSelection
    linears: tuple[LinearShape, ...]
    sparsities: tuple[float, ...]
    counts: dict[str, int] | None
    dtype: torch.dtype
    forward_dtype: torch.dtype
    device: torch.device
    method: Method = field(compare=False)
    rates: dict[str, float] | None = None

    @property
    def propagation(self) -> str:
        assert isinstance(self.parameters, PropagationOptions)
        return self.parameters.propagation

    @property
    def compensation(self) -> Compensation | None:
        return self.parameters.compensation if isinstance(self.parameters, CompensationOptions) else None

    @property
    def measured_allocation(self) -> str | None:
        """The allocation that needs a pass over the calibration tokens."""
        return self.parameters.measured_allocation if isinstance(self.parameters, AllocationOptions) else None

    @property
    def weight_reads(self) -> int:
        """Times the model's weights are read: once, plus one for OWL, two for gradients or an exact ranking."""
        allocating = {"owl": 1, "fisher": 2, None: 0}[self.measured_allocation]
        return 1 + allocating + 2 * (self.counts is not None)

    def target(self, linear: LinearShape) -> LayerTarget:
        """Return the pattern and sparsity of one linear layer."""
        sparsity = self.sparsities[linear.layer] if linear.layer < len(self.sparsities) else self.sparsity
        if self.rates is not None:
            sparsity = self.rates.get(linear.name, sparsity)
        return LayerTarget(self.pattern, sparsity, self.counts[linear.name] if self.counts is not None else None)

    def with_sparsities(self, sparsities: Sequence[float]) -> "LayerwisePlan":
        return replace(self, sparsities=tuple(sparsities))

    def with_rates(self, rates: dict[str, float]) -> "LayerwisePlan":
        """Return the plan with a share for each linear layer; a block's sparsity is then the mean over its layers."""
        weights = [[each for each in self.linears if each.layer == index] for index in range(len(self.sparsities))]
        averages = [
            sum(rates[each.name] * each.numel for each in block) / sum(each.numel for each in block)
            if block
            else self.sparsity
            for block in weights
        ]
        return replace(self, rates=rates, sparsities=tuple(averages))

    def micro_batch(self, length: int) -> int:
        """Return the number of sequences of `length` tokens per forward."""
        assert isinstance(self.parameters, PropagationOptions)
        return self.parameters.micro_batch or max(1, MICRO_BATCH_TOKENS // length)

    def fingerprint(self, folder: ModelFolder, revision: str, tokens: dict[str, Tensor]) -> str:
        """Hash everything the run's numbers depend on; a later attempt resumes only where the hash is the same."""
        facts = {
            "method": self.method_id,
            "pattern": self.pattern.text,
            "sparsity": self.sparsity,
            "parameters": self.parameters.model_dump(mode="json"),
            **model_facts(folder, revision, tokens),
        }
        return fingerprint("prune", facts, Runtime.of(self.device, self.forward_dtype))

    def facts(self) -> dict[str, Any]:
        """Return the engine's settings for the report."""
        return {"propagation": self.propagation, **engine_facts(self)}


class EnginePlan(Protocol):
    """The attributes of any plan that the report shows."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def forward_dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def weight_reads(self) -> int: ...


def engine_facts(plan: EnginePlan) -> dict[str, Any]:
    return {
        "forward_dtype": str(plan.forward_dtype).removeprefix("torch."),
        "model_dtype": str(plan.dtype).removeprefix("torch."),
        "device": plan.device.type,
        "weight_reads": plan.weight_reads,
    }


def model_facts(folder: ModelFolder, revision: str, tokens: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what a fingerprint has of the model and of the tokens that go through it, by the names of the streams."""
    return {
        "model": folder.description.model_dump(mode="json", exclude={"linears"}),
        "revision": revision,
        "tokens": {name: tensors_sha256(each) for name, each in tokens.items()},
    }
