"""Distillation (Hinton 2015, arXiv:1503.02531, section 2): a student learns a teacher's predictions at temperature T.

The loss is T² · KL(teacher ‖ student), whose gradient is about equally large at every temperature. On request it is
averaged with the loss of the right answer, as in the paper: the next token of the text, or an image's label. On request
the error of the hidden states behind the blocks is added, times a weight.

Hidden states are compared directly, in the residual stream behind a block: pruning here keeps their size, so that no
projection as in TinyBERT (Jiao 2020, arXiv:1909.10351) is needed. A block that stays is matched with the last dense
block before the next one that stays, so that it learns the work of the removed blocks between them. Minitron
(Muralidharan 2024, arXiv:2407.14679) also adds such a term to the loss of the predictions.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.engine.datasets.counted_tokens import plain_ids
from core.engine.datasets.image_set import ImageSet
from core.engine.models.folder import ModelFolder
from core.engine.models.hooks import first_output, removed_after
from core.engine.models.loading import load_model
from core.engine.recovery.completion import check_matching
from core.engine.recovery.larger_vocabulary import LargerVocabulary
from core.engine.recovery.losses import Labels, Loss, divergence, image_logits, labelled_loss
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import OpenedModel
from secateur_wire.errors import InvalidRequest

_TEACHER = "recovery.teacher"
_LEAST_MEAN_SQUARE = 0.01
"""Least mean square of a dimension, as a share of the median dimension's; smaller ones are raised to it."""


def matched_layers(layers: int, removed: Collection[int]) -> list[int]:
    """Return the number of the dense layer with which each remaining layer is matched."""
    left = [layer for layer in range(layers) if layer not in removed]
    return [following - 1 for following in [*left[1:], layers]]


@contextmanager
def outputs_of(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that is filled, as a model runs, with the hidden states of some of its blocks, in order.

    Outside the context nothing is kept: a block that runs again in the backward, to save activations, adds nothing.
    """
    outputs: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: object) -> None:
        hidden = first_output(output)
        assert hidden is not None
        outputs.append(hidden)

    with removed_after([block.register_forward_hook(keep) for block in blocks]):
        yield outputs


def mean_error(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return the mean over blocks of the relative error of their hidden states, without waiting for the device."""
    return torch.stack([relative_error(*pair) for pair in zip(given, wanted, strict=True)]).mean()


def relative_error(given_BTH: Tensor, wanted_BTH: Tensor) -> Tensor:
    """Return the mean over sequences and dimensions of Σ(given - wanted)² / Σ wanted², both sums over positions.

    Each dimension is relative to its own size in the sequence, not to the length of the whole vector. At the first
    token, and at some delimiters, a few dimensions are hundreds of times as large as all others (massive activations,
    Sun 2024, arXiv:2402.17762): relative to the whole vector the error would be only that of these few. Here each of
    them counts as one of many dimensions, and its error is mostly that at the first token. The result does not depend
    on other sequences, and thus not on the division of a batch. Computed in float32, or in float64 for float64 inputs.
    """
    dtype = torch.promote_types(given_BTH.dtype, torch.float32)
    given_BTH, wanted_BTH = given_BTH.to(dtype), wanted_BTH.to(dtype)
    size_BH = wanted_BTH.square().mean(-2)
    middle_B1 = size_BH.sort(-1).values[..., size_BH.shape[-1] // 2, None]
    size_BH = torch.maximum(size_BH, _LEAST_MEAN_SQUARE * middle_B1).clamp_min(torch.finfo(dtype).tiny)
    return ((given_BTH - wanted_BTH).square().mean(-2) / size_BH).mean()


def distillation_loss(opened: OpenedModel) -> Loss:
    """Return the loss of the next token's distribution and of the next token: means over all positions, in nats.

    Of conversations only the predictions of tokens that count are compared. With a weight of the hidden states, that
    loss and their error times the weight are returned. Raises InvalidRequest where there is no teacher that fits.
    """
    temperature, weight = opened.recovery.temperature, opened.recovery.hidden_states
    label_weight = opened.recovery.label_weight
    assert temperature is not None and weight is not None and label_weight is not None
    teacher_folder, teacher = _open_teacher(opened)
    larger = _larger_vocabulary(opened, teacher_folder)

    def of_predictions(model: nn.Module, tokens_BT: Tensor) -> Tensor:
        ids_BT = plain_ids(tokens_BT)
        next_N = functional.pad(tokens_BT[:, 1:], (0, 1), value=-1).flatten()  # the last of a sequence has none
        wanted_NV = _predictions(teacher, larger, ids_BT)
        logits_NV: Tensor = model(input_ids=ids_BT, use_cache=False).logits.flatten(0, 1)
        if ids_BT is not tokens_BT or larger is not None:  # some of conversations do not count, nor some at an end
            counted_N = next_N >= 0
            wanted_NV, logits_NV, next_N = wanted_NV[counted_N], logits_NV[counted_N], next_N[counted_N]
        labels = Labels(next_N, label_weight) if label_weight else None
        return divergence(logits_NV, wanted_NV, temperature, labels)

    if not weight:
        return of_predictions
    own, dense = _blocks(opened.folder, opened.model), _blocks(teacher_folder, teacher)
    matched = [dense[layer] for layer in matched_layers(len(dense), opened.removed_layers)]

    def of_both(model: nn.Module, tokens_BT: Tensor) -> Tensor:
        with outputs_of(own) as given, outputs_of(matched) as wanted:
            value = of_predictions(model, tokens_BT)
        return torch.stack([value, weight * mean_error(given, wanted)])

    return of_both


def image_loss(images: ImageSet, recovery: Recovery, teacher: nn.Module | None) -> Loss:
    """Return the loss of the labels or, with a teacher, of the classes' distribution and of the labels, in nats.

    Both are means over all images.
    """
    if teacher is None:
        return labelled_loss(images)
    temperature, weight = recovery.temperature or 1.0, recovery.label_weight or 0.0

    def loss(model: nn.Module, numbers_B1: Tensor) -> Tensor:
        numbers_B, device = numbers_B1[:, 0].cpu(), numbers_B1.device
        with torch.no_grad():
            wanted_BK = image_logits(teacher, images, numbers_B, device)
        labels = Labels(images.labels_N[numbers_B].to(device), weight) if weight else None
        return divergence(image_logits(model, images, numbers_B, device), wanted_BK, temperature, labels)

    return loss


@torch.no_grad()
def _predictions(teacher: nn.Module, larger: LargerVocabulary | None, tokens_BT: Tensor) -> Tensor:
    """Return the teacher's logits [batch · time, vocabulary]; one with a larger vocabulary reads in its own tokens."""

    def logits(ids_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = teacher(input_ids=ids_BT, use_cache=False).logits
        return logits_BTV

    if larger is None:
        return logits(tokens_BT).flatten(0, 1)
    return torch.cat([larger.translated(tokens_T, logits) for tokens_T in tokens_BT])


def _open_teacher(opened: OpenedModel) -> tuple[ModelFolder, nn.Module]:
    """Load the teacher; raises InvalidRequest where there is none, or one that does not fit."""
    if opened.teacher is None:
        raise InvalidRequest(
            "recovery.teacher is required: distill needs a model to learn from (the teacher)", param=_TEACHER
        )
    folder = opened.teacher.folder
    check_matching(opened.recovery, opened.folder.description, folder.description, opened.removed_layers)
    teacher = load_model(folder, opened.device, dtype=opened.frozen_dtype)
    teacher.requires_grad_(False)
    return folder, teacher


def _larger_vocabulary(opened: OpenedModel, teacher: ModelFolder) -> LargerVocabulary | None:
    """Return the teacher's vocabulary where it has more tokens than the model; raises InvalidRequest for fewer."""
    own, others = opened.folder.description.vocabulary_size, teacher.description.vocabulary_size
    if own == others:
        return None
    if others < own:
        raise InvalidRequest(
            f"{_TEACHER} has a vocabulary of {others} tokens, but the model has {own}: distill needs a teacher with "
            "all of the model's tokens",
            param=_TEACHER,
        )
    return LargerVocabulary(opened.folder.tokenizer(), teacher.tokenizer(), own, others)


def _blocks(folder: ModelFolder, model: nn.Module) -> list[nn.Module]:
    return list(model.get_submodule(folder.family.blocks).children())
