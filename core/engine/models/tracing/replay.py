"""Check of an assumption of streaming: blocks run one by one, with recorded arguments, give the same logits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.engine.models.streamed import ArgumentRecorder, BlockArguments, Replacement, call_block
from core.engine.models.tracing.blocks import Blocks, run_model, sample_tokens

_LENGTHS: Final = (7, 12)
_BATCHES: Final = (2, 3)
_TOLERANCE: Final = 1e-4


class Replay:
    """Small model with random weights whose blocks are run one by one."""

    def __init__(self, model: PreTrainedModel, blocks: Blocks) -> None:
        self.model = model
        modules = model.get_submodule(blocks.name)
        assert isinstance(modules, nn.ModuleList)
        self.modules = modules
        self.name = blocks.name
        self.outputs = blocks.outputs

    def arguments_depend_on(self) -> Literal["length", "tokens"] | None:
        """Return what the arguments of blocks depend on; None where blocks run one by one give other logits."""
        for dependence in ("length", "tokens"):
            if all(self._is_equal(length, dependence) for length in _LENGTHS):
                return dependence
        return None

    def _is_equal(self, length: int, dependence: Literal["length", "tokens"]) -> bool:
        """Return True if two batches that go through each block in turn get the whole model's logits."""
        batches = [sample_tokens(self.model, batch, length, seed) for seed, batch in enumerate(_BATCHES)]
        expected = [run_model(self.model, tokens).logits for tokens in batches]
        try:
            replayed = self._replayed(batches, dependence)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
            return False  # recorded arguments do not fit other tokens
        return all(map(_is_close, replayed, expected))

    def _replayed(self, batches: Sequence[Tensor], dependence: Literal["length", "tokens"]) -> list[Tensor]:
        recorded = [self._recorded(tokens) for tokens in batches]
        hidden = [first for first, _ in recorded]
        arguments = [of_blocks for _, of_blocks in recorded]
        if dependence == "length":
            arguments = [self._recorded(torch.zeros_like(batches[0][:1]))[1]] * len(batches)
        for index, block in enumerate(self.modules):
            for number, own in enumerate(arguments):
                with torch.no_grad():
                    hidden[number] = call_block(block, hidden[number], own[index])
        return [self._logits(tokens, last) for tokens, last in zip(batches, hidden, strict=True)]

    def _recorded(self, tokens: Tensor) -> tuple[Tensor, list[BlockArguments]]:
        """Return the first block's hidden states, and the arguments of all blocks, without running them."""
        recorders = [ArgumentRecorder(block, self.outputs) for block in self.modules]
        with self._in_place_of_blocks(recorders):
            run_model(self.model, tokens)
        return recorders[0].seen[0][0], [each.seen[0][1] for each in recorders]

    def _logits(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        first, *others = self.modules
        stand_ins = [
            Replacement(first, self.outputs, hidden),
            *(ArgumentRecorder(block, self.outputs) for block in others),
        ]
        with self._in_place_of_blocks(stand_ins):
            logits: Tensor = run_model(self.model, tokens).logits
        return logits

    @contextmanager
    def _in_place_of_blocks(self, stand_ins: Sequence[nn.Module]) -> Iterator[None]:
        owner, _, attribute = self.name.rpartition(".")
        setattr(self.model.get_submodule(owner), attribute, nn.ModuleList(stand_ins))
        try:
            yield
        finally:
            setattr(self.model.get_submodule(owner), attribute, self.modules)


def _is_close(one: Tensor, other: Tensor) -> bool:
    scale = float(other.std()) or 1.0
    return one.shape == other.shape and bool(((one - other).abs() <= _TOLERANCE * scale).all())
