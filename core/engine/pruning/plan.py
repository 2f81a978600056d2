"""Plan of a pass that prunes a language model block by block: the choices that all such passes share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.models.folder import ModelFolder
from core.engine.options.base import MethodParameters
from core.engine.resume.fingerprint import Runtime, fingerprint, tensors_sha256
from secateur_wire.base import JsonObject

MICRO_BATCH_TOKENS = 4096


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


def model_facts(folder: ModelFolder, revision: str, tokens: Mapping[str, Tensor]) -> JsonObject:
    """Return a fingerprint's facts of the model and of its tokens, by the names of the streams."""
    return {
        "model": folder.description.model_dump(mode="json", exclude={"linears"}),
        "revision": revision,
        "tokens": {name: tensors_sha256(each) for name, each in tokens.items()},
    }
