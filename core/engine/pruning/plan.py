"""Plans of passes that prune a language model block by block: what all share, and the plan of those that set zeros."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from core.engine.architectures.structure import LinearShape
from core.engine.models.folder import ModelFolder
from core.engine.options.axes import Compensation, MethodParameters, PropagationOptions
from core.engine.options.patterns import Pattern
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import LayerTarget
from core.engine.pruning.solver import Quantiser, Solver
from core.engine.resume.store import Runtime, fingerprint, tensors_sha256
from secateur_wire.base import JsonObject

MICRO_BATCH_TOKENS = 4096
_ERROR_SAMPLE_TOKENS = 1024
"""Tokens on which reconstruction errors are measured where there is no XᵀX."""


@dataclass(frozen=True, kw_only=True)
class PruningPlan(ABC):
    """Choices of one pass, all resolved. `dtype` is the model's own, `forward_dtype` that of its forwards."""

    method_id: str
    sparsity: float
    parameters: MethodParameters
    dtype: torch.dtype
    forward_dtype: torch.dtype
    device: torch.device

    @property
    @abstractmethod
    def weight_reads(self) -> int:
        """Number of times the model's weights are read."""

    @property
    @abstractmethod
    def choices(self) -> JsonObject:
        """Choices of this kind of pass that change its numbers, in addition to the choices of every pass."""

    @property
    @abstractmethod
    def settings(self) -> JsonObject:
        """Settings of this kind of pass, for the report."""

    def micro_batch(self, length: int) -> int:
        """Return the number of sequences of `length` tokens per forward."""
        return max(1, MICRO_BATCH_TOKENS // length)

    def fingerprint(self, folder: ModelFolder, revision: str, tokens: dict[str, Tensor]) -> str:
        """Return a hash of everything the numbers depend on; a later attempt resumes only with the same hash."""
        facts: JsonObject = {
            "method": self.method_id,
            "sparsity": self.sparsity,
            "parameters": self.parameters.model_dump(mode="json"),
            **self.choices,
            **model_facts(folder, revision, tokens),
        }
        return fingerprint("prune", facts, Runtime.of(self.device, self.forward_dtype))

    def facts(self) -> JsonObject:
        """Return the engine's settings for the report."""
        return {
            **self.settings,
            "forward_dtype": str(self.forward_dtype).removeprefix("torch."),
            "model_dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "weight_reads": self.weight_reads,
        }


@dataclass(frozen=True, kw_only=True)
class LayerwisePlan(PruningPlan):
    """Choices of one pass that sets weights to zero.

    `sparsities` has one sparsity per decoder layer; `counts` has exact numbers of weights where a ranking over the
    entire model chose them; `rates` has one share per linear layer where each has its own. With a `rounding` all
    linear layers of the blocks are quantised.
    """

    pattern: Pattern
    linears: tuple[LinearShape, ...]
    sparsities: tuple[float, ...]
    counts: dict[str, int] | None
    method: Solver = field(compare=False)
    rates: dict[str, float] | None = None
    rounding: Quantiser | None = None

    @property
    def _propagation_options(self) -> PropagationOptions:
        options = self.parameters.propagation_options
        assert options is not None
        return options

    @property
    def propagation(self) -> str:
        return self._propagation_options.propagation

    @property
    def compensation(self) -> Compensation | None:
        options = self.parameters.compensation_options
        return None if options is None else options.compensation

    @property
    def measured_allocation(self) -> str | None:
        """Allocation that needs a pass over the calibration tokens."""
        options = self.parameters.allocation_options
        return None if options is None else options.measured_allocation

    @property
    def weight_reads(self) -> int:
        """Number of times the model's weights are read: once, plus one for OWL, two for gradients or exact ranking."""
        allocating = {"owl": 1, "fisher": 2, None: 0}[self.measured_allocation]
        return 1 + allocating + 2 * (self.counts is not None)

    @property
    def choices(self) -> JsonObject:
        return {"pattern": self.pattern.text, **({} if self.rounding is None else {"rounding": self.rounding.facts})}

    @property
    def settings(self) -> JsonObject:
        return {"propagation": self.propagation}

    def target(self, linear: LinearShape) -> LayerTarget:
        """Return the pattern and sparsity of one linear layer."""
        sparsity = self.sparsities[linear.layer] if linear.layer < len(self.sparsities) else self.sparsity
        if self.rates is not None:
            sparsity = self.rates.get(linear.name, self.sparsity)
        return LayerTarget(self.pattern, sparsity, self.counts[linear.name] if self.counts is not None else None)

    def statistic(self, level: Statistic, tokens: int, fitted: int | None) -> InputStatistic:
        """Return an empty statistic for so many tokens; XᵀX where weights are fitted, to the first `fitted` tokens."""
        stride = max(1, tokens // _ERROR_SAMPLE_TOKENS)
        if self.compensation is None:
            return InputStatistic(level, sample_stride=stride)
        return InputStatistic(Statistic.GRAM, sample_stride=stride, fitted_tokens=fitted)

    def with_sparsities(self, sparsities: Sequence[float]) -> "LayerwisePlan":
        return replace(self, sparsities=tuple(sparsities))

    def with_rates(self, rates: dict[str, float]) -> "LayerwisePlan":
        """Return the plan with a share for each linear layer; a block's sparsity is then the mean over its layers.

        Layers without a rate, such as experts, keep the plan's own sparsity.
        """
        weights = [[each for each in self.linears if each.layer == index] for index in range(len(self.sparsities))]
        averages = [
            sum(rates.get(each.name, self.sparsity) * each.numel for each in block) / sum(each.numel for each in block)
            if block
            else self.sparsity
            for block in weights
        ]
        return replace(self, rates=rates, sparsities=tuple(averages))

    def micro_batch(self, length: int) -> int:
        """Return the number of sequences of `length` tokens per forward."""
        return self._propagation_options.micro_batch or super().micro_batch(length)


def model_facts(folder: ModelFolder, revision: str, tokens: Mapping[str, Tensor]) -> JsonObject:
    """Return a fingerprint's facts of the model and of its tokens, by the names of the streams."""
    return {
        "model": folder.description.model_dump(mode="json", exclude={"linears"}),
        "revision": revision,
        "tokens": {name: tensors_sha256(each) for name, each in tokens.items()},
    }
