"""Self-test of whole experts: a model without some must equal the dense one whose router cannot choose them."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from core.engine.architectures.units import EXPERT_UNITS
from core.engine.evaluation.reload_check import difference_beyond
from core.engine.models.folder import ModelFolder
from core.engine.models.tracing.blocks import run_model, sample_tokens
from core.engine.models.tracing.differential import one_line
from core.engine.pruning.units.removal import KeptUnits

_LENGTHS: Final = (5, 6, 12, 24)
"""Lengths of sequences: a router may be silently wrong at some lengths only."""
_TOLERANCE: Final = 1e-4
Reload = Callable[[KeptUnits], PreTrainedModel]
"""Function that saves the kept part of a model, as a job does, and opens it."""


def reason_to_keep_experts(opened: ModelFolder, dense: PreTrainedModel, reload: Reload) -> str | None:
    """Return why whole experts of a tiny random model cannot be removed; None where they can, or are not offered.

    One is removed (one of each group, where there are groups), and as many as possible.
    """
    structure, experts = opened.description.structure, opened.family.experts
    assert structure is not None
    if experts is None or experts.routing is None:
        return None
    counts = {EXPERT_UNITS.units(shape) for shape in structure.layers} - {0}
    if len(counts) != 1:
        return f"its layers have {sorted(counts)} experts"
    (before,) = counts
    allowed = [left for left in range(1, before) if experts.routing.refusal(left, experts.top_k) is None]
    if not allowed:
        return None
    for left in sorted({allowed[0], allowed[-1]}):
        kept = _random_experts(opened, left, seed=left)
        try:
            cut = reload(kept)
            for length in _LENGTHS:
                tokens = sample_tokens(dense, length=length, seed=length)
                with torch.inference_mode():
                    with _with_routers_masked(opened, dense, kept):
                        expected: Tensor = run_model(dense, tokens).logits.float()
                    logits: Tensor = run_model(cut, tokens).logits.float()
                difference = difference_beyond(logits, expected, _TOLERANCE)
                if difference is not None:
                    return f"with {left} of {before} experts, the logits of {length} tokens differ by {difference:g}"
        except Exception as error:  # the code of any model may fail in any way
            return (
                f"with {left} of {before} experts it cannot be saved and run: {type(error).__name__}: {one_line(error)}"
            )
    return None


def _random_experts(opened: ModelFolder, left: int, *, seed: int) -> KeptUnits:
    """Return random experts to keep in each layer that has some, the same number of each group."""
    structure = opened.description.structure
    assert structure is not None
    chooser = random.Random(seed)
    layers: dict[int, dict[str, list[int]]] = {}
    for layer, shape in enumerate(structure.layers):
        units, parts = EXPERT_UNITS.units(shape), max(EXPERT_UNITS.parts(shape), 1)
        each = units // parts
        layers[layer] = {}
        if units:
            chosen = [sorted(chooser.sample(range(each), left // parts)) for _ in range(parts)]
            layers[layer] = {
                EXPERT_UNITS.name: [part * each + unit for part, members in enumerate(chosen) for unit in members]
            }
    return KeptUnits(layers=layers)


@contextmanager
def _with_routers_masked(opened: ModelFolder, dense: PreTrainedModel, kept: KeptUnits) -> Iterator[None]:
    """Run the dense model, inside the context, with routers that never choose removed experts.

    Their outputs for these experts are −∞, and so are vectors with an entry for each expert, such as corrections of
    scores.
    """
    experts = opened.family.experts
    assert experts is not None and experts.routing is not None
    own = {experts.parameter(each) for each in experts.matrices}
    biases = {f"{experts.module}.{each.bias}" for each in experts.matrices if each.bias is not None}
    routers: list[tuple[Tensor, Tensor]] = []
    before: list[tuple[Tensor, Tensor]] = []
    try:
        for layer, block in enumerate(dense.get_submodule(opened.family.blocks).children()):
            units = kept.layers[layer].get(EXPERT_UNITS.name)
            if units is None:
                continue
            state = dict(block.state_dict(keep_vars=True))
            for name in experts.routing.rows:
                if name in own or name in biases or name not in state:
                    continue
                rows = state[name]
                removed = torch.ones(len(rows), dtype=torch.bool)
                removed[units] = False
                if rows.dim() > 1:
                    routers.append((rows, removed))
                else:
                    before.append((rows, rows.detach().clone()))
                    rows.data[removed] = -torch.inf
        with _Masking(routers):
            yield
    finally:
        for rows, values in before:
            rows.data.copy_(values)


class _Masking(TorchFunctionMode):
    """Mode in which products with some matrices have −∞ in the outputs of some of their rows."""

    def __init__(self, routers: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._removed = {rows.data_ptr(): removed for rows, removed in routers}

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Mapping[str, object] | None = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        if function is nn.functional.linear and len(arguments) > 1:
            removed = self._removed.get(arguments[1].data_ptr())
            if removed is not None:
                result = result.masked_fill(removed, -torch.inf)
        return result
