"""Probe of a decoder block on a tiny copy: the input columns of linear layers that change with another's output row.

The probe shifts a linear layer's output row at one position of a text, in one sample of a batch for each row. It
compares the inputs of all linear layers that run later in the block with those of an unchanged sample.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.engine.models.hooks import removed_after

POSITION: Final = 2
_LENGTH: Final = 6
_ROWS_AT_ONCE: Final = 64
_FEWEST, _MOST = 4, 20
"""Fewest and most texts and signs tried: a column that one text leaves at zero after a ReLU moves in another."""
_SHIFT: Final = 3.0
_LEAST_MOVEMENT: Final = 1e-4
"""Least movement that counts, relative to the largest of a layer's inputs; float32 differs by 1e-6."""


@dataclass(frozen=True)
class Movement:
    """Columns of a reader that move with each row of a producer: [rows, columns].

    `columns` move at any position, `later` at positions after the shifted one.
    """

    columns: Tensor
    later: Tensor


class _BlockDone(Exception):
    """Raised once the probed block has run, so that later blocks need not run."""


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Set a tiny model's weights so that all of it reacts: activations of about one, no row or norm like another."""
    generator = torch.Generator().manual_seed(seed)
    scaled = {
        id(module.weight): module.weight.shape[0 if isinstance(module, Conv1D) else -1]
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if id(parameter) in scaled:
            parameter.copy_(noise / scaled[id(parameter)] ** 0.5)
        elif parameter.dim() > 1 and float(parameter.abs().mean()) < 0.2:
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
        else:
            parameter.add_(0.1 * noise)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(generator=generator)


@torch.inference_mode()
def probe_block(
    model: PreTrainedModel, blocks: str, index: int, producers: Sequence[str], reader: str, bypassed: Sequence[str] = ()
) -> dict[str, Movement]:
    """Return the movement of a linear layer's inputs, by producer; only for producers that every token runs through.

    The modules `bypassed` return their input unchanged.
    """
    block = model.get_submodule(f"{blocks}.{index}")
    moved: dict[str, Movement] = {}
    if not _has(block, reader):
        return moved
    with _bypassing(block, bypassed), _ending_after(model, blocks, index):
        for producer in [name for name in producers if _has(block, name)]:
            rows = torch.arange(_rows(block.get_submodule(producer))).split(_ROWS_AT_ONCE)
            parts = [_moved(model, block, producer, each, reader) for each in rows]
            if all(parts):
                columns, later = (torch.cat([part[which] for part in parts if part]) for which in (0, 1))
                moved[producer] = Movement(columns, later)
    return moved


def _moved(
    model: PreTrainedModel, block: nn.Module, producer: str, rows: Tensor, reader: str
) -> tuple[Tensor, Tensor] | None:
    """Return the columns of a reader that move with these rows, at any and at later positions; None where unknown."""
    samples = 1 + len(rows)
    moved: tuple[Tensor, Tensor] | None = None
    for repeat in range(_MOST):
        if repeat >= _FEWEST and (moved is None or _is_settled(moved[0])):
            break
        generator = torch.Generator().manual_seed(repeat)
        tokens = torch.randint(3, model.config.get_text_config().vocab_size, (1, _LENGTH), generator=generator)
        seen: list[Tensor] = []
        handles = [
            block.get_submodule(producer).register_forward_hook(_shifting(rows, repeat % 2 * 2 - 1)),
            block.get_submodule(reader).register_forward_pre_hook(_recording(seen)),
        ]
        with removed_after(handles), suppress(_BlockDone):
            model(input_ids=tokens.expand(samples, -1), use_cache=False)
        by_position = _by_position(seen[-1].float(), samples) if seen else None
        if by_position is not None:
            moves = (by_position[1:] - by_position[:1]).abs().amax(2) > _LEAST_MOVEMENT * by_position[0].abs().max()
            columns, later = moves.any(1), moves[:, POSITION - _LENGTH + 1 :].any(1)
            moved = (columns, later) if moved is None else (moved[0] | columns, moved[1] | later)
    return moved


def _is_settled(columns: Tensor) -> bool:
    """Return True if each row has moved a column, or none has."""
    return bool(columns.any(1).all()) or not bool(columns.any())


def _by_position(values: Tensor, samples: int) -> Tensor | None:
    """Return a view of a layer's inputs or outputs, [samples, positions, places, features]; None where it has none."""
    if values.dim() == 2:
        if not values.is_contiguous() or values.shape[0] != samples * _LENGTH:
            return None
        return values.view(samples, _LENGTH, 1, -1)
    if values.dim() not in (3, 4):
        return None
    if values.shape[0] != samples and values.shape[1] == samples:
        values = values.transpose(0, 1)
    places = [place for place, size in enumerate(values.shape[:-1]) if place and size >= _LENGTH]
    if values.shape[0] != samples or not places:
        return None
    return values.unsqueeze(2) if values.dim() == 3 else values.movedim(places[0], 1)


def _shifting(rows: Tensor, sign: int) -> Any:
    def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        samples = 1 + len(rows)
        shift = torch.zeros(output.shape, dtype=output.dtype)
        by_position = _by_position(shift, samples)
        if by_position is None:
            return output
        by_position[torch.arange(1, samples), POSITION - _LENGTH, :, rows] = sign * _SHIFT * (1 + output.std())
        return output + shift

    return hook


def _recording(seen: list[Tensor]) -> Any:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(arguments[0])

    return hook


@contextmanager
def _bypassing(block: nn.Module, names: Sequence[str]) -> Iterator[None]:
    handles = [
        block.get_submodule(name).register_forward_hook(lambda module, arguments, output: arguments[0])
        for name in names
        if _has(block, name)
    ]
    with removed_after(handles):
        yield


@contextmanager
def _ending_after(model: nn.Module, blocks: str, index: int) -> Iterator[None]:
    """End a forward, inside the context, where the block after this one begins."""

    def end(*arguments: Any) -> None:
        raise _BlockDone

    every = model.get_submodule(blocks)
    following = list(every.children())[index + 1 : index + 2]
    with removed_after([each.register_forward_pre_hook(end) for each in following]):
        yield


def _has(block: nn.Module, name: str) -> bool:
    return name in dict(block.named_modules())


def _rows(linear: nn.Module) -> int:
    weight = linear.get_parameter("weight")
    return weight.shape[1 if isinstance(linear, Conv1D) else 0]


def block_kinds(model: nn.Module, blocks: str) -> Mapping[tuple[tuple[str, tuple[int, ...]], ...], int]:
    """Return the first block of each kind; a kind is the names and shapes of a block's parameters."""
    kinds: dict[tuple[tuple[str, tuple[int, ...]], ...], int] = {}
    for index, block in enumerate(model.get_submodule(blocks).children()):
        shapes = tuple(sorted((name, tuple(each.shape)) for name, each in block.named_parameters()))
        kinds.setdefault(shapes, index)
    return kinds
