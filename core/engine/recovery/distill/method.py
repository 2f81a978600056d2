"""Distillation (Hinton 2015, arXiv:1503.02531, section 2): a student learns a teacher's predictions at temperature T.

The loss is T² · KL(teacher ‖ student), whose gradient is about equally large at every temperature. On request it is
averaged with the loss of the right answer, as in the paper: the next token of the text, or an image's label. On request
the error of the hidden states behind the blocks is added, times a weight.

Hidden states are compared directly, in the residual stream behind a block: pruning here keeps their size, so that no
projection as in TinyBERT (Jiao 2020, arXiv:1909.10351) is needed. A block that stays is matched with the last dense
block before the next one that stays, so that it learns the work of the removed blocks between them. Minitron
(Muralidharan 2024, arXiv:2407.14679) also adds such a term to the loss of the predictions.
"""

import hashlib
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
from core.engine.recovery.distill.divergence import Labels, TopWords, divergence, row_slices, softened
from core.engine.recovery.distill.info import INFO, TOP_WORDS, USES_TO_KEEP
from core.engine.recovery.distill.larger_vocabulary import LargerVocabulary
from core.engine.recovery.losses import Loss, image_logits
from core.engine.recovery.protocols import ClassifierRecovery, LanguageRecovery, OpenedModel, Trainable
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import all_except_embeddings, every_parameter, low_rank_adapters
from secateur_wire.errors import InvalidRequest


def are_kept(sequences: int, length: int, uses: int) -> bool:
    """Return True if predictions are kept: each is used often enough on average, and all of them fit in the limit."""
    is_repeated = uses >= USES_TO_KEEP * sequences
    return is_repeated and sequences * length * INFO.token_bytes <= INFO.most_kept_bytes


class Predictions:
    """Predictions of a teacher at a temperature, for sequences of tokens [batch, time].

    `larger` is the teacher's vocabulary where it has more tokens than the student's; each sequence is then a text that
    the teacher reads in its own tokens.
    """

    def __init__(
        self, teacher: nn.Module, temperature: float, *, keeps: bool, larger: LargerVocabulary | None = None
    ) -> None:
        self._teacher = teacher
        self._temperature = temperature
        self._larger = larger
        self._kept: dict[bytes, TopWords] | None = {} if keeps else None

    @torch.no_grad()
    def of(self, tokens_BT: Tensor) -> Tensor | TopWords:
        """Return the logits [batch · time, vocabulary], or the kept top words.

        Top words are computed one sequence at a time. They then do not depend on other sequences of a batch, so that a
        resumed run computes the same bits again, and needs no copy on disk.
        """
        if self._kept is None:
            return self._logits(tokens_BT)
        parts = []
        for sequence_T in tokens_BT:
            key = hashlib.blake2b(sequence_T.cpu().numpy().tobytes(), digest_size=16).digest()
            if key not in self._kept:
                self._kept[key] = self._top_words(sequence_T[None])
            parts.append(self._kept[key])
        return TopWords.joined(parts)

    def _logits(self, tokens_BT: Tensor) -> Tensor:
        if self._larger is None:
            return self._own_logits(tokens_BT).flatten(0, 1)
        return torch.cat([self._translated(self._larger, tokens_T) for tokens_T in tokens_BT])

    def _own_logits(self, tokens_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self._teacher(input_ids=tokens_BT, use_cache=False).logits
        return logits_BTV

    def _translated(self, larger: LargerVocabulary, tokens_T: Tensor) -> Tensor:
        reading = larger.read(tokens_T)
        if reading is None:
            return larger.labels(tokens_T)
        return larger.logits(self._own_logits(reading.ids_T.to(tokens_T.device)[None])[0], reading, tokens_T)

    def _top_words(self, tokens_1T: Tensor) -> TopWords:
        logits_TV = self._logits(tokens_1T)
        return TopWords.joined(
            [
                TopWords.of(softened(logits_TV[start:end], self._temperature), TOP_WORDS)
                for start, end in row_slices(logits_TV)
            ]
        )


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


_TEACHER = "recovery.teacher"


class Distillation(LanguageRecovery, ClassifierRecovery):
    """Training of adapters or, without adapters, of the weights, on a teacher's predictions."""

    def prepare(self, opened: OpenedModel) -> Trainable:
        if opened.recovery.lora is not None:
            return low_rank_adapters(opened)
        return every_parameter(opened) if opened.recovery.train_embeddings else all_except_embeddings(opened)

    def loss(self, opened: OpenedModel) -> Loss:
        """Return the loss of the next token's distribution and of the next token: means over all positions, in nats.

        Of conversations only the predictions of tokens that count are compared.

        With a weight of the hidden states, return that loss and their error times the weight. The error needs the
        teacher in every step, so that its predictions are not kept.
        """
        temperature, weight = opened.recovery.temperature, opened.recovery.hidden_states
        label_weight = opened.recovery.label_weight
        assert temperature is not None and weight is not None and label_weight is not None
        teacher_folder, teacher = _open_teacher(opened)
        larger = _larger_vocabulary(opened, teacher_folder)
        sequences, length = opened.windows
        uses = opened.recovery.steps * opened.recovery.batch_size
        keeps = not weight and are_kept(sequences, length, uses)
        predictions = Predictions(teacher, temperature, keeps=keeps, larger=larger)

        def of_predictions(model: nn.Module, tokens_BT: Tensor) -> Tensor:
            ids_BT, next_N = plain_ids(tokens_BT), _next_tokens(tokens_BT).flatten()
            wanted = predictions.of(ids_BT)
            logits_NV: Tensor = model(input_ids=ids_BT, use_cache=False).logits.flatten(0, 1)
            if ids_BT is not tokens_BT or larger is not None:  # some of conversations do not count, nor some at an end
                counted_N = next_N >= 0
                wanted = wanted.selected(counted_N) if isinstance(wanted, TopWords) else wanted[counted_N]
                logits_NV, next_N = logits_NV[counted_N], next_N[counted_N]
            labels = Labels(next_N, label_weight) if label_weight else None
            return divergence(logits_NV, wanted, temperature, labels)

        if not weight:
            return of_predictions
        own, dense = _blocks(opened.folder, opened.model), _blocks(teacher_folder, teacher)
        matched = [dense[layer] for layer in matched_layers(len(dense), opened.removed_layers)]

        def of_both(model: nn.Module, tokens_BT: Tensor) -> Tensor:
            with outputs_of(own) as given, outputs_of(matched) as wanted:
                value = of_predictions(model, tokens_BT)
            return torch.stack([value, weight * mean_error(given, wanted)])

        return of_both

    def image_loss(self, images: ImageSet, recovery: Recovery, teacher: nn.Module | None) -> Loss:
        """Return the loss of the classes' distribution and of the labels: means over all images, in nats."""
        assert teacher is not None, "nothing to learn from"
        temperature, weight = recovery.temperature or 1.0, recovery.label_weight or 0.0

        def loss(model: nn.Module, numbers_B1: Tensor) -> Tensor:
            numbers_B, device = numbers_B1[:, 0].cpu(), numbers_B1.device
            with torch.no_grad():
                wanted_BK = image_logits(teacher, images, numbers_B, device)
            labels = Labels(images.labels_N[numbers_B].to(device), weight) if weight else None
            return divergence(image_logits(model, images, numbers_B, device), wanted_BK, temperature, labels)

        return loss


def _next_tokens(tokens_BT: Tensor) -> Tensor:
    """Return the next token of each token, -1 for the last of a sequence."""
    return functional.pad(tokens_BT[:, 1:], (0, 1), value=-1)


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
