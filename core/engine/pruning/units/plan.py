"""Plan of a structured run, with every choice resolved."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.engine.architectures.heterogeneous import Layout
from core.engine.architectures.unit_counts import AttentionMode, layer_count
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import gradient_dtype
from core.engine.models.tensors import DTYPES
from core.engine.options.base import MethodParameters
from core.engine.options.compensation import Refit, Refitted
from core.engine.options.width import Width
from core.engine.options.width_counts import Narrowing, require_narrowing, require_structure
from core.engine.pruning.layerwise.plan import MICRO_BATCH_TOKENS, engine_facts, fingerprint
from core.engine.pruning.protocols.units import StructuredMethod
from core.methods.engine import build_structured_method
from core.methods.registry import parse_parameters
from core.pipeline.recipes.validation import check_job


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
    narrowing: Narrowing | None
    removed_layers: int
    dtype: torch.dtype
    forward_dtype: torch.dtype
    device: torch.device

    @property
    def method(self) -> StructuredMethod:
        return build_structured_method(self.method_id, self.parameters)

    @property
    def compensation(self) -> Refit | None:
        """Options of the refit of what is left; None: no refit."""
        asked = self.parameters.compensation if isinstance(self.parameters, Refitted) else None
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
        choices = [self.method_id, self.sparsity, self.at_least, self.layout, self.parameters.model_dump(mode="json")]
        return fingerprint(choices, folder, revision, tokens, self.forward_dtype, self.device)

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


def make_structured_plan(
    folder: ModelFolder,
    *,
    method: str,
    sparsity: float | None = None,
    pattern: str | None = None,
    parameters: dict[str, object] | None = None,
    layout: Layout | None = None,
    at_least: bool = False,
    device: torch.device | None = None,
) -> StructuredPlan:
    """Check a request against a model and resolve every choice it leaves open; raises InvalidRequest kinds.

    `layout` is that of the resulting model, None: the model's own. With `at_least` no less than `sparsity` is removed,
    else the nearest there is.
    """
    description = folder.description
    resolved = check_job(description, method, pattern, sparsity, parameters or {}, layout=layout, at_least=at_least)
    checked = parse_parameters(method, resolved.parameters)
    structure = require_structure(description)
    ratio = resolved.sparsity
    assert ratio is not None
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[description.dtype]
    narrowing = None
    if isinstance(checked, Width):
        narrowing = require_narrowing(
            description, checked, ratio, layout=resolved.layout, device=device.type, at_least=at_least
        )
    whole_layers = 0
    if narrowing is None:
        whole_layers = layer_count(structure, parameters=description.parameters, ratio=ratio, at_least=at_least)
    return StructuredPlan(
        method_id=method,
        sparsity=ratio,
        parameters=checked,
        layout=resolved.layout,
        at_least=at_least,
        narrowing=narrowing,
        removed_layers=whole_layers,
        dtype=dtype,
        forward_dtype=gradient_dtype(dtype, device),
        device=device,
    )
