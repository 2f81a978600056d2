"""Check of what streaming stands on: blocks that run one by one, with arguments recorded before, give the same logits."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.engine.models.tracing.blocks import Blocks, first_output, hidden_states, run_model, sample_tokens

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a block other than its hidden states."""
_LENGTHS: Final = (7, 12)
_BATCHES: Final = (2, 3)
_TOLERANCE: Final = 1e-4


class Replay:
    """A small model with random weights whose blocks are run one by one."""

    def __init__(self, model: PreTrainedModel, blocks: Blocks) -> None:
        self.model = model
        modules = model.get_submodule(blocks.name)
        assert isinstance(modules, nn.ModuleList)
        self.modules = modules
        self.outputs = blocks.outputs

    def arguments_depend_on(self) -> Literal["length", "tokens"] | None:
        """Return what the arguments of blocks follow from; None where blocks that run apart give other logits."""
        for dependence in ("length", "tokens"):
            if all(self._is_equal(length, dependence) for length in _LENGTHS):
                return dependence
        return None

    def _is_equal(self, length: int, dependence: Literal["length", "tokens"]) -> bool:
        """Return True if two batches that go through each block in turn have the whole model's logits."""
        batches = [sample_tokens(self.model, batch, length, seed) for seed, batch in enumerate(_BATCHES)]
        expected = [run_model(self.model, tokens).logits for tokens in batches]
        try:
            replayed = self._replayed(batches, dependence)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
            return False  # arguments of other tokens do not fit
        return all(map(_is_close, replayed, expected))

    def _replayed(self, batches: Sequence[Tensor], dependence: Literal["length", "tokens"]) -> list[Tensor]:
        recorded = [self._recorded(tokens) for tokens in batches]
        hidden = [first for first, _ in recorded]
        arguments = [of_blocks for _, of_blocks in recorded]
        if dependence == "length":
            arguments = [self._recorded(torch.zeros_like(batches[0][:1]))[1]] * len(batches)
        for index, block in enumerate(self.modules):
            for number, own in enumerate(arguments):
                positional, keywords = own[index]
                with torch.no_grad():
                    output = first_output(block(hidden[number], *positional, **keywords))
                assert output is not None
                hidden[number] = output
        return [self._logits(tokens, last) for tokens, last in zip(batches, hidden, strict=True)]

    def _recorded(self, tokens: Tensor) -> tuple[Tensor, list[Arguments]]:
        """Return the first block's hidden states, and the arguments of all, none of which is run."""
        seen: list[tuple[Tensor, Arguments]] = []

        def record(*arguments: Any, **keywords: Any) -> Any:
            hidden = hidden_states(arguments, keywords)
            assert hidden is not None
            named = {name: value for name, value in keywords.items() if arguments or name != "hidden_states"}
            seen.append((hidden, (arguments[1:], named)))
            return self._answer(hidden)

        with self._in_place_of_blocks(lambda index: record):
            run_model(self.model, tokens)
        return seen[0][0], [arguments for _, arguments in seen]

    def _logits(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        with self._in_place_of_blocks(lambda index: lambda *arguments, **keywords: self._answer(hidden)):
            logits: Tensor = run_model(self.model, tokens).logits
        return logits

    def _answer(self, hidden: Tensor) -> Any:
        return (hidden, *[None] * (self.outputs - 1)) if self.outputs else hidden

    @contextmanager
    def _in_place_of_blocks(self, stand_in: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
        for index, block in enumerate(self.modules):
            vars(block)["forward"] = stand_in(index)
        try:
            yield
        finally:
            for block in self.modules:
                del vars(block)["forward"]


def _is_close(one: Tensor, other: Tensor) -> bool:
    scale = float(other.std()) or 1.0
    return one.shape == other.shape and bool(((one - other).abs() <= _TOLERANCE * scale).all())
