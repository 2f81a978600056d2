"""What a structured run is to do, with every choice made."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from core.catalogue.compatibility import check_job, parse_parameters, require_counts, require_structure
from core.catalogue.parameters import MethodParameters, Width
from core.catalogue.structure import AttentionMode, Counts, attention_mode, layer_count
from core.models.folder import ModelFolder
from core.models.weights import DTYPES
from core.pruning.methods import build_structured_method
from core.pruning.methods.structured import StructuredMethod
from core.pruning.plan import MICRO_BATCH_TOKENS, engine_facts, fingerprint


@dataclass(frozen=True)
class StructuredPlan:
    """One run's choices: what every layer keeps, for methods that narrow layers (`counts`), or how many layers go.

    `sparsity` is a share of all parameters of the model. `dtype` is the model's own.
    """

    method_id: str
    sparsity: float
    parameters: MethodParameters
    attention: AttentionMode
    counts: Counts | None
    removed_layers: int
    dtype: torch.dtype
    forward_dtype: torch.dtype
    device: torch.device

    @property
    def method(self) -> StructuredMethod:
        return build_structured_method(self.method_id, self.parameters)

    @property
    def weight_reads(self) -> int:
        """Times the model's weights are read: to choose what goes, and to remove it."""
        return 1 + self.method.weight_reads

    def micro_batch(self, length: int) -> int:
        """Sequences of `length` tokens per forward."""
        return max(1, MICRO_BATCH_TOKENS // length)

    def fingerprint(self, folder: ModelFolder, revision: str, tokens: dict[str, Tensor]) -> str:
        """A hash of everything the run's numbers depend on: a later attempt continues only where it is the same."""
        kept = [self.counts and asdict(self.counts), self.removed_layers]
        choices = [self.method_id, self.sparsity, self.parameters.model_dump(mode="json"), kept]
        return fingerprint(choices, folder, revision, tokens, self.forward_dtype, self.device)

    def facts(self) -> dict[str, Any]:
        """How the engine worked, for the report."""
        return {"attention": self.attention, **engine_facts(self)}


def make_structured_plan(
    folder: ModelFolder,
    *,
    method: str,
    sparsity: float | None = None,
    pattern: str | None = None,
    parameters: dict[str, object] | None = None,
    at_least: bool = False,
    device: torch.device | None = None,
) -> StructuredPlan:
    """Check a request against a model and make every choice it leaves open; raises InvalidRequest kinds.

    `at_least`: no less than `sparsity` goes, else what is nearest to it.
    """
    description = folder.description
    resolved = check_job(description, method, pattern, sparsity, parameters or {}, at_least=at_least)
    checked = parse_parameters(method, resolved.parameters)
    structure = require_structure(description)
    ratio = resolved.sparsity
    assert ratio is not None
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[description.dtype]
    counts, removed_layers = None, 0
    if isinstance(checked, Width):
        counts = require_counts(description, checked, ratio, device=device.type, at_least=at_least)
    else:
        removed_layers = layer_count(structure, parameters=description.parameters, ratio=ratio, at_least=at_least)
    return StructuredPlan(
        method_id=method,
        sparsity=ratio,
        parameters=checked,
        attention=attention_mode(checked.attention, structure) if isinstance(checked, Width) else "none",
        counts=counts,
        removed_layers=removed_layers,
        dtype=dtype,
        forward_dtype=dtype if device.type == "cuda" else torch.float32,
        device=device,
    )
