"""Experts of a block at run time: the tokens routed to them, and the computation of one expert."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture, ExpertMatrix, Experts
from core.engine.datasets.counted_tokens import rows_at


@dataclass(frozen=True)
class RoutedTokens:
    """Tokens [tokens, hidden_size] at a block's experts, with their experts' numbers and gates [tokens, top_k]."""

    hidden_NH: Tensor
    index_NK: Tensor
    gates_NK: Tensor

    @classmethod
    def of(cls, arguments: Sequence[object], keywords: Mapping[str, object]) -> "RoutedTokens | None":
        """Return the tokens that an experts' module is called with; None where its arguments have another form."""
        given = [each for each in (*arguments, *keywords.values()) if isinstance(each, Tensor)]
        if len(given) != 3:
            return None
        hidden, *routing = given
        index = next((each for each in routing if not each.is_floating_point()), None)
        gates = next((each for each in routing if each.is_floating_point()), None)
        if index is None or gates is None or index.shape != gates.shape or index.dim() != 2:
            return None
        hidden_NH = hidden.reshape(-1, hidden.shape[-1])
        return cls(hidden_NH, index, gates) if len(hidden_NH) == len(index) else None

    def at(self, places_N: Tensor | None) -> "RoutedTokens":
        """Return the tokens at the places that count; None: all."""
        return RoutedTokens(*(rows_at(each, places_N) for each in (self.hidden_NH, self.index_NK, self.gates_NK)))

    def of_expert(self, expert: int) -> tuple[Tensor, Tensor]:
        """Return the indices of an expert's tokens, ascending, and their gates: both [tokens]."""
        rows_N, places_N = torch.where(self.index_NK == expert)
        return rows_N, self.gates_NK[rows_N, places_N]

    def gated_inner(self, stacks: "ExpertStacks", expert: int) -> tuple[Tensor, Tensor]:
        """Return the indices of an expert's tokens, and the inputs of its last matrix times their gates.

        In float32, [tokens, channels]: a mixture is one wide network of these features, zero for all other tokens.
        """
        rows_N, gates_N = self.of_expert(expert)
        inner_NI = stacks.inner(self.hidden_NH[rows_N], expert)
        return rows_N, inner_NI.float() * gates_N.float()[:, None]

    def reached(self, experts: int) -> Tensor:
        """Return the number of tokens that go to each of `experts` experts: [experts], on the CPU."""
        return torch.bincount(self.index_NK.flatten(), minlength=experts).cpu()


class ExpertStacks:
    """Stacks of a block's experts, which run one expert at a time with the block's own weights and functions."""

    def __init__(self, block: nn.Module, experts: Experts) -> None:
        self.module = block.get_submodule(experts.module)
        self._own: Any = self.module  # transformers adds functions to such modules
        self.experts = experts

    def __len__(self) -> int:
        return len(self.stack(self.experts.reading))

    def stack(self, matrix: ExpertMatrix) -> nn.Parameter:
        """Return the module's parameter that stacks a matrix of every expert."""
        return self.module.get_parameter(matrix.name)

    def matrix_OI(self, matrix: ExpertMatrix, expert: int) -> Tensor:
        """Return an expert's matrix as a view, [outputs, inputs]."""
        return out_in(self.stack(matrix)[expert], self.experts)

    def inner(self, hidden_NH: Tensor, expert: int) -> Tensor:
        """Return the inputs of the expert's last matrix, for tokens that it gets: [tokens, channels]."""
        return self.gated(self._product(self.experts.reading, hidden_NH, expert))

    def gated(self, read_NF: Tensor) -> Tensor:
        """Return the gated activations of an expert's first outputs: [tokens, channels]."""
        inner_NI: Tensor = self._own._apply_gate(read_NF) if self.has_gate else self._own.act_fn(read_NF)
        return inner_NI

    @property
    def has_gate(self) -> bool:
        """Return True if half of the first matrix's outputs are gates of the others."""
        return bool(self._own.has_gate)

    def output(self, inner_NI: Tensor, expert: int) -> Tensor:
        """Return the expert's outputs, before its gate: [tokens, hidden_size]."""
        given = self._product(self.experts.giving, inner_NI, expert)
        output: Tensor = self._own.post_expert_norm(given) if self._own.has_post_expert_norm else given
        return output

    def _product(self, matrix: ExpertMatrix, inputs_NI: Tensor, expert: int) -> Tensor:
        bias = None if matrix.bias is None else self.module.get_parameter(matrix.bias)[expert]
        return nn.functional.linear(inputs_NI, self.matrix_OI(matrix, expert), bias)


def out_in(matrix: Tensor, experts: Experts) -> Tensor:
    """Transpose one expert's matrix to [outputs, inputs], or back, where the stacks store it transposed."""
    return matrix.T if experts.transposed else matrix


def router_tensors(experts: Experts, present: Mapping[str, Tensor]) -> list[str]:
    """Return the router's tensors of a block that have an entry for each expert; none where the routing is unknown."""
    rows = () if experts.routing is None else experts.routing.rows
    return [name for name in rows if name in present and not name.startswith(f"{experts.module}.")]


def mixture_module(experts: Experts) -> str:
    """Return the name of the innermost module of a block with both its experts and its router.

    Where the router is unknown it is the experts' own module.
    """
    if experts.routing is None:
        return experts.module
    common = experts.module.split(".")[:-1]
    for name in experts.routing.rows:
        parts = name.split(".")[:-1]
        while parts[: len(common)] != common:
            common.pop()
    return ".".join(common)


def stored_tensors(family: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's tensors by the files' keys; stacks of experts are split where files store experts separately.

    The numbers of layers and experts are taken from the given names and stacks.
    """
    stored: dict[str, Tensor] = {}
    experts = family.experts
    stacks = {} if experts is None else {experts.parameter(each): each for each in experts.matrices if each.parts}
    prefix = f"{family.blocks}."
    for name, tensor in tensors.items():
        layer, _, inner = name.removeprefix(prefix).partition(".")
        matrix = stacks.get(inner) if name.startswith(prefix) else None
        if matrix is None:
            stored[family.stored_name(name)] = tensor
            continue
        for expert, rows in enumerate(tensor.unbind()):
            for part, share in zip(matrix.parts, rows.chunk(len(matrix.parts)), strict=True):
                stored[part.format(layer, expert)] = share
    return stored


def saved_tensors(family: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a block's tensors, given by their names in the model, by the names under which they are saved.

    With experts these are the keys of the source's own files; otherwise the model's names, which `from_pretrained`
    accepts.
    """
    return dict(tensors) if family.experts is None else stored_tensors(family, tensors)
